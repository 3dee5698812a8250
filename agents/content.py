"""What the checkpoint of an agent holds, and whether a file's content is that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from agents.checkpoint import CheckpointError
from agents.config import AgentConfig
from agents.episodes import WINDOW
from agents.retention import RetentionConfig
from agents.schema import Anything, Array, Items, Named, Number, NumberOr, Optional, Table, Text, Whole
from common.config import plain, problems, read
from common.errors import shown
from policies import Policy, PolicyConfig, from_json

IMAGE_SIDE = 1 << 16
"""No image is as high or wide as that."""

_FLOATS = ("float32", "float64", "float16", "bfloat16")
_WEIGHTS = Named(Array((*_FLOATS, "bool")))  # masks are part of a network, too
_BYTES = Array(("uint8",), 1)

LEARNER = Table(
    {
        "policy": _WEIGHTS,
        "optimizer": Table(
            {
                "state": Named(Named(NumberOr(Array(_FLOATS)))),
                "param_groups": Items(Named(Anything()), 1000),
            }
        ),
        "shuffling": _BYTES,
        "updates": Whole(),
        "skipped": Whole(),
        "retention": Named(Anything()),
    },
    {"replaying": _BYTES},
)
"""What a learner keeps; a method of continual learning examines by itself what it takes up."""

RUN = Table(
    {
        "num_timesteps": Whole(),
        "total_timesteps": Whole(),
        "random": Table({"acting": _BYTES, "predicting": _BYTES, "global": _BYTES}),
        "num_envs": Optional(Whole(1, 10**6)),
    },
    {
        "task": Whole(0, 10**6),
        "consolidation_steps": Whole(),
        "episodes": Table(
            {
                "windows": Named(Items(Items(Optional(Number()), most=3, least=3), most=WINDOW)),
                "played": Items(Text(), 10**6),
            }
        ),
        "collector": Table(
            {
                "core_state": Named(Array((*_FLOATS, "int64"))),
                "games": Items(Text(), 10**6),
                "rewards": Table(
                    {},
                    {
                        "returns": Array(("float64",), 1),
                        "statistics": Named(Table({"mean": Number(), "var": Number(), "count": Number()})),
                    },
                ),
            }
        ),
        "observation": Table({"rgb": Array(("uint8",), 4), "reward": Array(("float32",), 2)}),
        "episode_start": Array(("bool",), 1),
        "behaviour": _WEIGHTS,
        # Environments examine their states, as far as the native library lets them (docs/checkpoints.md).
        "env": Optional(Named(Anything())),
    },
)
"""Where a run stands; most of the second half is missing where there are no environments."""

MAX_SEED = 2**32 - 1
"""NumPy takes no greater one."""

SCHEMA = Table(
    {
        "algorithm": Text(),
        "config": Named(Anything()),  # these two have ranges of their own, in the types of their fields
        "policy_config": Named(Anything()),
        "image_shape": Items(Whole(1, IMAGE_SIDE), most=3, least=3),
        "num_actions": Whole(1, IMAGE_SIDE),
        "seed": Optional(Whole(0, MAX_SEED)),
        "experiment": Named(Anything()),
        "learner": LEARNER,
        "run": RUN,
    },
    {"retention": Table({"name": Text(), "config": Named(Anything())})},  # as for the configurations
)
"""What the checkpoint of an agent holds: checked when it is written, and before anything in it is used."""


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
        run: counters, and the states of environments, collector and random generators, at a rollout's start; of a run
            that several processes share, those of process 0, and those of the others in a list, "others".
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
        content = {
            **parts,
            "config": plain(self.config),
            "policy_config": plain(self.policy_config),
            "image_shape": list(self.image_shape),
            "retention": {"name": self.retention, "config": plain(self.retain)},
        }
        SCHEMA.check(content, "")
        return content

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str, config_class: type[AgentConfig]) -> AgentContent:
        """The parts in the content of the file called `name`; its network is that of the stored weights.

        Raises:
            CheckpointError: a part is missing, of another form, or holds impossible values.
        """
        with fitting(name):
            SCHEMA.check(content, "")
            retention = content.get("retention", {"name": "none", "config": {}})  # older files have none
            found = cls(
                algorithm=content["algorithm"],
                config=_settings(config_class(), content["config"]),
                policy_config=from_json(content["policy_config"]),
                image_shape=tuple(content["image_shape"]),
                num_actions=content["num_actions"],
                seed=content["seed"],
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
        sections, blocks = getattr(config.encoder, "channels", ()), getattr(config.encoder, "blocks", 1)
        if max(getattr(config.core, "layers", 1), len(sections), blocks) > len(weights):
            raise ValueError("its network has more layers than there are stored weights")
        with torch.device("meta"):  # takes no memory
            policy = Policy(config, self.image_shape, self.num_actions)
        described, stored = (
            {name: (tuple(tensor.shape), tensor.dtype == torch.bool) for name, tensor in tensors.items()}
            for tensors in (policy.state_dict(), weights)
        )
        if described != stored:
            names = sorted({*described, *stored})
            different = [
                shown(name, quoted=False) for name in names if described.get(name) != stored.get(name)
            ]
            raise ValueError(f"its network has other weights, such as {', '.join(different[:3])}")


def processes_of(run: Mapping[str, Any]) -> int:
    """How many processes shared the run of whose checkpoint `run` is that part."""
    return 1 + len(run.get("others", ()))


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
            f"it has no {shown(error.args[0])}"
            if isinstance(error, KeyError) and error.args
            else lines[0][:1000]
            if lines
            else type(error).__name__
        )
        raise CheckpointError(f"{name} does not fit: {reason}") from error
