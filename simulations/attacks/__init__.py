"""Hostile sites, and what a defence makes of them."""
