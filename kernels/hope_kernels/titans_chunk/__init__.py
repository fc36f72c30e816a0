"""Prefill and Adapt: many tokens of many sequences."""
