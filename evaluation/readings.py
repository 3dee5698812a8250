"""What the readings of cores (`policies.Reading`) mean, in the words of those who look at them.

Keyed by the name of a reading, or of a layer's memory. A reading that is not here is shown all the same, under its own
name.
"""

from __future__ import annotations

# Labels are written with true minus signs, as the formulas that they are.
# ruff: noqa: RUF001

WORDS: dict[str, tuple[str, str]] = {
    "shift_norm": (
        "‖Wₜ − W₀‖",
        "how far the layer's matrix has moved from the trained one since its memory was last cleared, all heads",
    ),
    "fast_norm": (
        "‖Wₜ‖",
        "how large the layer's fast weights are, which start from zero, all heads",
    ),
    "shift_written": ("written", "‖Wₜ − Wₜ₋₁‖: how much this one step has changed the matrix"),
    "fast_written": ("written", "‖Wₜ − Wₜ₋₁‖: how much this one step has changed the fast weights"),
    "rate_y": ("rate y", "how fast the columns that make the output are rewritten, 0 to 1"),
    "rate_q": ("rate q", "how fast the columns that make the query are rewritten, 0 to 1"),
    "rate_k": ("rate k", "how fast the columns that make the key are rewritten, 0 to 1"),
    "rate_beta": ("rate β", "how fast the columns that make the rates themselves are rewritten, 0 to 1"),
    "rate": ("rate", "how fast the fast weights are rewritten, 0 to 1"),
    "input_entropy": (
        "evenness of φ(x)",
        "entropy of what a head reads its matrix with, as a share of the greatest: 1 reads all rows alike, 0 one alone",
    ),
    "key_entropy": (
        "evenness of φ(k)",
        "entropy of the key, as a share of the greatest: 1 writes to all rows alike, 0 to a single one",
    ),
    "shift_share": (
        "share of Wₜ − W₀",
        "how much of the layer's output comes from its self-modification; above 1 where that works against the rest",
    ),
    "fast_share": (
        "share of the past",
        "how much of the layer's output comes from what earlier steps have written, not this one",
    ),
}
"""Label and one line of explanation by the name of a reading."""
