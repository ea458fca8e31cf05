"""From an image to views, and to frozen features that are kept on disk."""
