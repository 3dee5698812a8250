"""Is everything right and fast on this GPU: ``python -m benchmarks.gpu_check --out DIR``."""
