"""Speed, memory and learning, measured; each module is a command: ``python -m benchmarks.training --help``."""

from common import quiet_gym  # noqa: F401  (first: nothing that imports the old gym may come before it)
