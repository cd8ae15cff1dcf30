"""Training: images and a recipe in, a model out."""
