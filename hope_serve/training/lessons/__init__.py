"""Lessons: what people tell over several adaptations, and what they may ask afterwards; drawn without end."""
