"""Deployed federations under faults: what must hold whatever happens."""
