"""From the changes of the sites to the next weights."""
