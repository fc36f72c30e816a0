"""How fast memories rest in a real Valkey on loopback, and return: one run, one table, one dated file."""
