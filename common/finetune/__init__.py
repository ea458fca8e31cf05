"""The mathematics of staged fine-tuning."""
