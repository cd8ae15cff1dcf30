"""Images: where they come from, and how bytes become pixels."""
