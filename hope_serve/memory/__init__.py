"""What a user has learned, as bytes: sealed, versioned, committed exactly once."""
