"""What crosses the wire, and the form in which it adds."""
