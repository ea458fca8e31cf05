"""The mathematics of differential privacy: accounting, noise, clipped sums."""
