"""Measurements, each run by one command; results are dated files that name the hardware."""
