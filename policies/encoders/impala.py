"""IMPALA's residual network (Espeholt et al., arXiv 1802.01561, figure 3, right), as published."""

from __future__ import annotations

from dataclasses import dataclass

from policies.encoders.base import SectionsConfig
from policies.encoders.residual import SectionsEncoder


@dataclass(frozen=True)
class ImpalaEncoderConfig(SectionsConfig):
    """Sizes of the residual encoder; the defaults are the paper's."""


class ImpalaEncoder(SectionsEncoder):
    """Sections of convolution, max-pool and residual blocks on the whole frame."""

    config_class = ImpalaEncoderConfig
