"""One prefix searched: kinds of index behind one interface, how they are built, and kernels."""
