"""What each optimizer of a level buys, and what more levels do: one small recipe, several seeds, one table."""
