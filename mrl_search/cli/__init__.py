"""The command line: one file a command, over `Index`; results on stdout, notes on stderr."""
