"""Image search over Matryoshka embeddings."""
