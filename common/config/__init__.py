"""The configuration of a run, a module for each family of settings."""
