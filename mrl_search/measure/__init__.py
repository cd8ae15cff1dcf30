"""Measuring and presenting: accuracy per prefix, latency per plan, and the page that shows them."""
