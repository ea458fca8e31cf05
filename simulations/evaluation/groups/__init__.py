"""How a model serves each group of lesions: figures, gaps to the rest, and what could be seen."""
