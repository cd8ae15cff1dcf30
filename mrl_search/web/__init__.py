"""The page and the HTTP API over `Index`."""
