"""Speed, memory and learning, measured; each module is a command: ``python -m benchmarks.training --help``."""

from common import silence_gym

silence_gym()
