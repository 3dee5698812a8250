"""Reset rules against explicit step-by-step counting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from policies.resets import EpisodeReset, NeverReset, ResetRule, SpanReset, State, parse_reset


def counted(episode_start: Tensor, span: int) -> Tensor:
    """Where a stream that is fresh at step 0 is cleared, counted one step at a time."""
    steps, batch = episode_start.shape
    mask = torch.zeros(steps, batch, dtype=torch.bool)
    for b in range(batch):
        age = 0
        for t in range(steps):
            if episode_start[t, b] or age == span:
                age = 0
            mask[t, b] = age == 0
            age += 1
    return mask


@pytest.mark.parametrize("span", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("piece", [1, 2, 5, 40])
def test_span_clears_at_episode_starts_and_every_span_steps_since(span: int, piece: int) -> None:
    rule = SpanReset(span)
    episode_start = torch.rand(40, 6, generator=torch.Generator().manual_seed(span)) < 0.1
    episode_start[:, 0] = False
    episode_start[:, 1] = True
    state: State = rule.initial_state(6)
    masks = []
    for part in episode_start.split(piece):
        mask, state = rule.mask(state, part)
        assert state["age"].dtype is torch.int64
        assert state["age"].shape == (6,)
        masks.append(mask)
    torch.testing.assert_close(torch.cat(masks), counted(episode_start, span))


def test_episode_rule_clears_at_starts_and_never_rule_nowhere() -> None:
    episode_start = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(EpisodeReset().mask({}, episode_start)[0], episode_start)
    assert not NeverReset().mask({}, episode_start)[0].any()
    assert EpisodeReset().initial_state(3) == NeverReset().initial_state(3) == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [("episode", EpisodeReset()), (" never", NeverReset()), ("1", SpanReset(1)), (50, SpanReset(50))],
)
def test_rules_by_name(text: str | int, rule: ResetRule) -> None:
    assert parse_reset(text) == rule


@pytest.mark.parametrize("text", ["episodes", "", "0", "-3", "2.5", "None", "1000001", "9" * 5000, "٣"])
def test_bad_rules_get_one_clear_line(text: str) -> None:
    with pytest.raises(UserError) as error:
        parse_reset(text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
