"""Decode: one token of every sequence."""
