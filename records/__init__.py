"""A run on disk: its settings, directory, lock, logs, and what it was made with."""

from common import silence_gym

silence_gym()
