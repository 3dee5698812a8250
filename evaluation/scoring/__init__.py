"""Scores of an agent: what is played, what was found, and how it is shown."""
