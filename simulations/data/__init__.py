"""Generated images, and how images are spread over sites."""
