"""What a hospital's operator decides and types, and the process that a node starts."""
