"""Who takes part in a run, and what becomes of a question to them."""
