"""A HOPE model as torch modules; no word of requests or users."""
