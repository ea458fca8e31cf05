"""The privacy ledger, and whatever is paid for by it."""
