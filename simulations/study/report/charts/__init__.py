"""The charts of a study."""
