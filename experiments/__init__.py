"""Named presets and training runs: configuration, run directories, progress, resuming."""

from common.quiet_gym import silence_gym

silence_gym()
