"""The ledger: the append-only record of charges, and the source of truth."""
