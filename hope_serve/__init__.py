"""hope-serve: inference and online adaptation for HOPE models, with a memory for every user."""

__version__ = "0.1.0"
