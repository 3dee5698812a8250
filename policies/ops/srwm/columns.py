"""How the columns of SRWM's matrix are laid out."""

from __future__ import annotations

import torch
from torch import Tensor


def block_of_column(output: int, width: int, device: torch.device) -> Tensor:
    """For each of the E + 2D + 4 columns, which of the blocks y, q, k, beta (0 to 3) it is in."""
    return torch.tensor([0] * output + [1] * width + [2] * width + [3] * 4, device=device)
