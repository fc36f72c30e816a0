"""What a model and its memories are worth, measured through a running server's own calls, its rivals beside it."""
