"""Networks that are trained from a stage on, and what their frozen parts give."""
