"""Values that add over sites, and what is computed from the sums."""
