"""The sites of a run, and what becomes of a question to them."""
