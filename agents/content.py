"""What the checkpoint of an agent holds, and whether a file's content is that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from agents.checkpoint import CheckpointError
from agents.config import AgentConfig
from agents.retention import RetentionConfig
from common.config import plain, problems, read
from policies import Policy, PolicyConfig, from_json

IMAGE_SIDE = 1 << 16
"""No image is as high or wide as that."""


@dataclass(frozen=True)
class AgentContent:
    """The parts of a checkpoint, which the parts of an agent write and read.

    Attributes:
        algorithm: name of the algorithm.
        config: its hyperparameters.
        policy_config: the network.
        image_shape: of the images it was trained on, (H, W, C).
        num_actions: how many it chose from.
        seed: of everything random; None where it was drawn.
        experiment: plain values that came along.
        retention: names of the methods of continual learning.
        retain: their settings.
        learner: what `Learner.state` returned.
        run: counters, and the states of environments, collector and random generators, at a rollout's start.
    """

    algorithm: str
    config: AgentConfig
    policy_config: PolicyConfig
    image_shape: tuple[int, int, int]
    num_actions: int
    seed: int | None
    experiment: dict[str, Any]
    retention: str
    retain: RetentionConfig
    learner: Mapping[str, Any]
    run: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """As nested dictionaries of plain values and tensors."""
        parts = {name: value for name, value in vars(self).items() if name != "retain"}
        return {
            **parts,
            "config": plain(self.config),
            "policy_config": plain(self.policy_config),
            "image_shape": list(self.image_shape),
            "retention": {"name": self.retention, "config": plain(self.retain)},
        }

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str, config_class: type[AgentConfig]) -> AgentContent:
        """The parts in the content of the file called `name`; its network is that of the stored weights.

        Raises:
            CheckpointError: a part is missing, of another form, or holds impossible values.
        """
        with fitting(name):
            shape, num_actions, seed = content["image_shape"], content["num_actions"], content["seed"]
            retention = content.get("retention", {"name": "none", "config": {}})  # older files have none
            if len(shape) != 3 or not all(type(n) is int and 0 < n < IMAGE_SIDE for n in shape):
                raise ValueError(f"its images have the shape {shape}")
            if type(num_actions) is not int or not 0 < num_actions < IMAGE_SIDE:
                raise ValueError(f"its number of actions is {num_actions!r}")
            if seed is not None and type(seed) is not int:
                raise ValueError(f"its seed is {seed!r}")
            found = cls(
                algorithm=content["algorithm"],
                config=_settings(config_class(), content["config"]),
                policy_config=from_json(content["policy_config"]),
                image_shape=(shape[0], shape[1], shape[2]),
                num_actions=num_actions,
                seed=seed,
                experiment=dict(content["experiment"]),
                retention=str(retention["name"]),
                retain=_settings(RetentionConfig(), retention["config"]),
                learner=dict(content["learner"]),
                run=dict(content["run"]),
            )
            found._check_weights()
        return found

    def _check_weights(self) -> None:
        """Refuse a network other than that of the stored weights before it is made: it may be of any size."""
        weights, config = self.learner["policy"], self.policy_config
        if getattr(config.core, "layers", 1) > len(weights) or len(config.encoder.channels) > len(weights):
            raise ValueError("its network has more layers than there are stored weights")
        with torch.device("meta"):  # takes no memory
            policy = Policy(config, self.image_shape, self.num_actions)
        described = {name: tuple(tensor.shape) for name, tensor in policy.state_dict().items()}
        stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if described != stored:
            names = sorted({*described, *stored})
            different = [name for name in names if described.get(name) != stored.get(name)]
            raise ValueError(f"its network has other weights, such as {', '.join(different[:3])}")


def _settings(default: Any, data: object) -> Any:
    found: list[str] = []
    settings = read(default, data, found)
    found += problems(settings)
    if found:
        raise ValueError("; ".join(found))
    return settings


@contextmanager
def fitting(name: str) -> Iterator[None]:
    """Within it, what the file called `name` holds is taken up: what goes wrong is the file's fault.

    Raises:
        CheckpointError: with the reason in one line.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (
        KeyError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        IndexError,
        OverflowError,
    ) as error:
        lines = str(error).strip().splitlines()
        reason = (
            f"it has no {error}"
            if isinstance(error, KeyError)
            else lines[0]
            if lines
            else type(error).__name__
        )
        raise CheckpointError(f"{name} does not fit: {reason}") from error
