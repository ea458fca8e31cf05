"""Hostile sites, and the effect of a defence."""
