"""What private methods share: noisy sums over sites, and steps along them."""
