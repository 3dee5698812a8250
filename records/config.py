"""The configuration of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from agents import ALGORITHMS, AgentConfig, ImpalaConfig
from common.config import problems as setting_problems
from common.errors import raise_problems, unknown_name
from envs import TASK_SETS, expand_games
from policies import CORES, EncoderConfig, PolicyConfig, core_config
from policies.cores.base import CoreConfig
from records.settings import build, plain


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run does. It is checked by `records.validation`, not here.

    Attributes:
        games: games or task sets (easy6, memory4, all16); each game gets the same share of the slots.
        mode: easy, hard, memory, exploration or extreme; not every game has every mode.
        levels: levels to train on: train, test1, test2, test3, all, or A:B for levels A to B-1.
        slots: environments stepped together, a multiple of the number of games.
        total_steps: environment steps of all slots together, rounded up to whole rollouts.
        seed: of environments, weights and actions.
        policy: recurrent core; its sizes are the options core.*
        algorithm: learning algorithm; its hyperparameters are the options agent.*
        core: sizes of the recurrent core.
        encoder: sizes of the image encoder.
        reset: when the core forgets: episode, never, or a number of steps such as 50.
        bptt_span: steps that gradient flows through; none for the whole unroll, 1 as in the published code.
        precision: what the encoder computes in, float32 or bfloat16.
        agent: hyperparameters of the learning algorithm.
        device: auto, cpu or cuda.
        torch_threads: threads of torch's operators; none for torch's own choice.
        env_threads: native threads that step the games; 0 steps them in the main thread.
        env_groups: groups of slots, of which one steps while the actions of another are chosen; none for 2 with a GPU
            and 1 without (there, choosing actions keeps the processor busy anyway). Each group draws its own levels.
        checkpoint_every_steps: environment steps between two checkpoints; none for one at the end only.
        checkpoint_every_minutes: minutes after which one is written even before that; none for no such limit.
        keep_checkpoints: the newest so many are kept, and that of the best normalised return in training; none: all.
        watchdog_minutes: when nothing has moved for so long, the run is saved and ended; none to wait for ever.
        log_every_steps: environment steps between two entries of progress.csv and TensorBoard.
        evaluation_episodes: episodes of each game and split in the final evaluation; none for no evaluation.
        evaluation_splits: levels that the final evaluation plays.
        evaluation_greedy: whether scores and videos show the most likely actions, or draw them as in training.
        videos: whether to record a video of the agent playing each game at the end.
        video_every: environment steps between two videos in the course of training; none for no such videos.
    """

    games: tuple[str, ...] = TASK_SETS["easy6"]
    mode: str = "easy"
    levels: str = "train"
    slots: int = 66
    total_steps: int = 1_000_000
    seed: int = 0
    policy: str = "srwm"
    algorithm: str = "impala"
    core: CoreConfig = field(default_factory=lambda: core_config("srwm"))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    reset: str = "episode"
    bptt_span: int | None = None
    precision: str = "float32"
    agent: AgentConfig = field(default_factory=ImpalaConfig)
    device: str = "auto"
    torch_threads: int | None = None
    env_threads: int = 4
    env_groups: int | None = None
    checkpoint_every_steps: int | None = 1_000_000
    checkpoint_every_minutes: float | None = 10.0
    keep_checkpoints: int | None = 5
    watchdog_minutes: float | None = 15.0
    log_every_steps: int = 10_000
    evaluation_episodes: int | None = 100
    evaluation_splits: tuple[str, ...] = ("train", "test1")
    evaluation_greedy: bool = True
    videos: bool = True
    video_every: int | None = None

    @property
    def policy_config(self) -> PolicyConfig:
        """The network that the settings describe.

        Raises:
            UserError: a value is impossible.
        """
        return PolicyConfig(self.core, self.encoder, self.reset, self.bptt_span, self.precision)

    @property
    def rollout_steps(self) -> int:
        """Environment steps of all slots between two phases of learning."""
        return self.slots * self.agent.rollout_steps


NESTED = ("core", "encoder", "agent")
"""The fields of `TrainConfig` that are dataclasses themselves."""


def with_policy(config: TrainConfig, name: str) -> TrainConfig:
    """`config` with the core `name`, at the paper's sizes unless it is the present one."""
    return config if name == config.policy else replace(config, policy=name, core=core_config(name))


def with_algorithm(config: TrainConfig, name: str) -> TrainConfig:
    """`config` with the algorithm `name`, at its defaults unless it is the present one."""
    if name == config.algorithm:
        return config
    return replace(config, algorithm=name, agent=ALGORITHMS[name].config_class())


def to_json(config: TrainConfig) -> dict[str, Any]:
    """All settings as plain JSON values; `from_json` reads them back."""
    data: dict[str, Any] = plain(config)
    return data


def from_json(data: object) -> TrainConfig:
    """The configuration that `to_json` wrote; settings left out take their defaults.

    Raises:
        UserError: unknown settings, values of a wrong type, or sizes that a part refuses; names all of them.
    """
    problems: list[str] = []
    config = read_settings(data, TrainConfig(), problems)
    for part in ("core", "encoder"):
        problems += setting_problems(getattr(config, part), f"{part}.")
    raise_problems(problems)
    return config


def read_settings(data: object, default: TrainConfig, problems: list[str]) -> TrainConfig:
    """`default` with the plain values in `data`; adds a line to `problems` for each that cannot be taken.

    Where the policy or the algorithm changes, its own settings start from the defaults of the new one.
    """
    values = dict(data) if isinstance(data, Mapping) else {}
    core_known = _choose(values, "policy", CORES, problems)
    agent_known = _choose(values, "algorithm", ALGORITHMS, problems)
    base = with_policy(default, values.get("policy", default.policy))
    base = with_algorithm(base, values.get("algorithm", default.algorithm))
    parts: dict[str, Any] = {}
    for name in NESTED:
        part = values.pop(name, {})
        known = {"core": core_known, "agent": agent_known}.get(name, True)
        present = getattr(base, name)
        # The settings of a part whose name is unknown cannot be judged.
        parts[name] = build(type(present), part, present, problems, f"{name}.") if known else present
    config = build(
        TrainConfig, values if isinstance(data, Mapping) else data, replace(base, **parts), problems
    )
    return replace(config, games=expand_games(config.games))


def _choose(values: dict[str, Any], key: str, known: Mapping[str, Any], problems: list[str]) -> bool:
    """Whether `values` names a known policy or algorithm, or none; an unknown one is taken out."""
    if key not in values or (isinstance(values[key], str) and values[key] in known):
        return True
    problems.append(unknown_name(key, str(values.pop(key)), known))
    return False


def setting_names(config: TrainConfig) -> list[str]:
    """All settings with their dotted names, such as "slots" and "core.heads"."""
    names: list[str] = []
    for item in fields(config):
        if item.name in NESTED:
            names += [f"{item.name}.{part.name}" for part in fields(getattr(config, item.name))]
        else:
            names.append(item.name)
    return names


_INCIDENTAL = frozenset(
    (
        *("device", "torch_threads", "env_threads", "videos", "video_every", "log_every_steps"),
        *("checkpoint_every_steps", "checkpoint_every_minutes", "keep_checkpoints", "watchdog_minutes"),
        *("evaluation_episodes", "evaluation_splits", "evaluation_greedy"),
    )
)


def learned_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what is learned, by dotted name: "reset", "core.heads"."""
    found: dict[str, Any] = {}

    def add(data: Mapping[str, Any], prefix: str) -> None:
        for name, value in data.items():
            if isinstance(value, Mapping):
                add(value, f"{prefix}{name}.")
            else:
                found[prefix + name] = value

    add({name: value for name, value in to_json(config).items() if name not in _INCIDENTAL}, "")
    return found
