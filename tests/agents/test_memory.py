from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import numpy as np
from agents.device import peak_memory
before = peak_memory()
np.ones(400_000_000, dtype=np.uint8)
after = peak_memory()
print(before.keys() == {"peak_gb"}, before["peak_gb"], after["peak_gb"] - before["peak_gb"])
"""


def test_the_peak_stays_after_the_memory_is_given_back() -> None:
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    only, before, grown = output.stdout.split()
    assert only == "True"
    assert 0.05 < float(before) < 2.0
    assert 0.35 < float(grown) < 0.45
