"""The end of a chunk: the ring becomes one write of the matrix."""
