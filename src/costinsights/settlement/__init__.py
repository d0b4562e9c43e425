"""Settlement: a system's own history, and later figures for the charges that are in the ledger."""
