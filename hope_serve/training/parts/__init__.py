"""Meta-training of memory parts: a frozen base learns to remember what it is told, by gradient steps of a user's B."""
