"""Encoders: pictures in, raw vectors out."""
