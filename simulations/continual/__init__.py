"""A federation that goes on learning, step by step, and what it forgets."""
