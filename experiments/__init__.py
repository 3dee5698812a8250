"""Named presets and training runs: configuration, run directories, progress, resuming."""

import envs  # noqa: F401  (before Stable-Baselines3, which would let the old gym print its banner)
