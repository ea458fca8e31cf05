"""Training a study's cells, side by side on the cores of this machine."""
