"""A site's part in secure sums, and its keys."""
