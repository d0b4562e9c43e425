"""Billing: what providers bill, pulled into the ledger beside the charges of calls."""
