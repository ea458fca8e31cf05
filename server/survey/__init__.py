"""What the sites of a federation have, before any training: figures, what to change, and pages."""
