"""Measurements: learning curves, speed and memory. Each module is one command."""
