"""The published network: its size, and what is refused."""

from __future__ import annotations

import pytest

from common.config import check
from common.errors import UserError
from policies.encoders.impala import ImpalaEncoder, ImpalaEncoderConfig


def test_the_published_network_has_the_published_size() -> None:
    encoder = ImpalaEncoder(ImpalaEncoderConfig(), (64, 64, 3))
    convolutions, linear = 97_600, 2048 * 256 + 256
    assert sum(parameter.numel() for parameter in encoder.parameters()) == convolutions + linear


@pytest.mark.parametrize("channels", [(), (16, 0), (16, -1), (2.5,), "16", 16, (1,) * 33, (10**9,)])
def test_impossible_sizes_are_refused(channels: object) -> None:
    with pytest.raises(UserError, match="channels"):
        check(ImpalaEncoderConfig(channels=channels))  # type: ignore[arg-type]
