"""Benchmarks: every ratio from one run, side by side."""
