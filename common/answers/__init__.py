"""What a model says of one image, and what that rests on."""
