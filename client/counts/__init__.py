"""What a site counts of its images, for methods to send: sums by diagnosis, group and score."""
