"""Trained agents that come with the suite: a file of weights for each, and a card that says where it comes from.

Their names stand wherever a run or a checkpoint is expected: ``python eval.py watch starpilot-srwm``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.checkpoint import SUFFIX

DIRECTORY = Path(__file__).parent
CARD_SUFFIX = ".json"


def trained_names(directory: Path = DIRECTORY) -> list[str]:
    """The names of the trained agents, in alphabetical order."""
    return sorted(path.name.removesuffix(SUFFIX) for path in directory.glob(f"*{SUFFIX}"))


def trained_checkpoint(name: str, directory: Path = DIRECTORY) -> Path | None:
    """The weights of the trained agent called `name`; None if there is none."""
    return directory / f"{name}{SUFFIX}" if name in trained_names(directory) else None


def read_card(name: str, directory: Path = DIRECTORY) -> dict[str, Any]:
    """What is known of the trained agent called `name`: see `export.make_card`."""
    return dict(json.loads((directory / f"{name}{CARD_SUFFIX}").read_text(encoding="utf-8")))
