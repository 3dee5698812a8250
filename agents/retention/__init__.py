"""Methods of continual learning, by name.

A new one is a subclass of `Retention` in a file of its own, and a line in `RETENTIONS`.
"""

from __future__ import annotations

from agents.retention.base import Retention

RETENTIONS: dict[str, type[Retention]] = {
    "none": Retention,
}
"""Every method by name; "none" is fine-tuning."""

__all__ = ["RETENTIONS", "Retention"]
