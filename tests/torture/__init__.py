"""Machines that damage what goes in and stop what goes out, at every point."""
