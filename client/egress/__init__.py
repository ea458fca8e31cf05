"""What may be asked of a site and may leave it, checked and logged; nothing else does."""
