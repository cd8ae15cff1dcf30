"""Copies of one picture in a collection: what they are, which one is kept, and what is done."""
