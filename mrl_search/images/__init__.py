"""Images in: sources, decoding, splits, augmentation, and the drawn animals of the demo."""
