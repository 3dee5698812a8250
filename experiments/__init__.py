"""Named presets and training runs: configuration, run directories, progress, resuming."""

from common import quiet_gym  # noqa: F401  (first: Stable-Baselines3 imports the old gym)
