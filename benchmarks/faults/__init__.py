"""Everything that can go wrong with a run, made to happen: ``python -m benchmarks.faults --help``."""
