"""Networks: backbones, Matryoshka heads, the encoder that turns pictures into vectors, and its files."""
