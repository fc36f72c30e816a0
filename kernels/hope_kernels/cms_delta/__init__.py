"""What a sequence's own delta adds to a shared matrix."""
