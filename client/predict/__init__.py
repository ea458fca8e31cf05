"""What a person sees of a model's answers: at a terminal, in a table, on a page."""
