"""Measuring an index into records; it draws nothing."""
