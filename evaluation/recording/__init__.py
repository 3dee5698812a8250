"""Films and traces of an agent at play."""
