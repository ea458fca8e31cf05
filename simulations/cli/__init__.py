"""The command ``fedderm``."""
