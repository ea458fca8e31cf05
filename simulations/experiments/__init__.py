"""What models answer, measured for the documents: each module is a command of its own."""
