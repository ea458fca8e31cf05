"""A round of fine-tuning at a site: views, steps, and what goes on from round to round."""
