"""Files on disk: whole or not at all, written once, verified, of a known version."""
