"""What methods have stored of networks and of states, held against what it is to become before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from policies import Policy, State

Kind = tuple[tuple[int, ...], bool]
"""Shape of a tensor, and whether its elements are fractions."""


def kind_of(tensor: Tensor) -> Kind:
    """What a stored tensor must have in common with the one whose place it takes."""
    return tuple(tensor.shape), tensor.is_floating_point()


def check_kinds(stored: Mapping[str, Any], wanted: Mapping[str, Kind], what: str) -> None:
    """Raise ValueError, which calls the whole `what`, unless `stored` are tensors of these names and kinds."""
    found = {
        name: kind_of(value) if isinstance(value, Tensor) else None for name, value in dict(stored).items()
    }
    if found != dict(wanted):
        raise ValueError(f"{what} that a method of continual learning has stored is of another network")


def load_weights(module: nn.Module, stored: Mapping[str, Any], what: str) -> None:
    """Give `module` stored weights; `what` is "the teacher", say.

    Raises:
        ValueError: they are of another network.
    """
    check_kinds(stored, {name: kind_of(tensor) for name, tensor in module.state_dict().items()}, what)
    module.load_state_dict(stored)


def read_state(policy: Policy, stored: Mapping[str, Any], what: str) -> State:
    """A stored state of `policy`, for any number of environments, where its weights are.

    Raises:
        ValueError: it is of another network, or its parts are of different numbers of environments.
    """
    sizes = {len(tensor) for tensor in stored.values() if isinstance(tensor, Tensor) and tensor.dim()}
    wanted = policy.initial_state(next(iter(sizes)) if len(sizes) == 1 else 1)
    check_kinds(stored, {name: kind_of(tensor) for name, tensor in wanted.items()}, what)
    return {name: tensor.to(policy.device) for name, tensor in stored.items()}


def state_kinds(policy: Policy) -> dict[str, Kind]:
    """Of the state of one environment."""
    return {name: kind_of(tensor[0]) for name, tensor in policy.initial_state(1).items()}
