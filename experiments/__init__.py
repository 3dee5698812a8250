"""Named presets and training runs: configuration, run directories, progress, resuming."""

from common import silence_gym

silence_gym()
