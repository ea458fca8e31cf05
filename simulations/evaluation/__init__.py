"""Trained models on the same test lesions: how good, how sure, for whom, and is one better."""
