"""Several vectors of environments as one, in groups that can also be stepped one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from common.errors import UserError, raise_problems
from envs.checks import MAX_SEED, default_num_envs, sharing_problems
from envs.games import expand_games
from envs.levels import Levels
from envs.states import State, join_states, split_states
from envs.tasks import Task
from envs.vec_env import Indices, Observation, ProcgenVecEnv, concatenate


class GroupedVecEnv(VecEnv):
    """The environments of all `groups`, in that order, as one `VecEnv`.

    A caller that finds the attribute `groups` may step each group by itself with the group's own `step_async` and
    `step_wait`, so that one group steps while the actions of another are chosen. While a step of a single group is in
    progress, the whole must not be stepped, and the other way round.

    Args:
        groups: environments with equal spaces and dictionaries of arrays as observations; `close` closes them.

    Raises:
        ValueError: no groups, or their spaces differ.
    """

    def __init__(self, groups: Sequence[VecEnv]) -> None:
        if not groups:
            raise ValueError("GroupedVecEnv needs at least one group")
        first = groups[0]
        for group in groups:
            if (group.observation_space, group.action_space) != (first.observation_space, first.action_space):
                raise ValueError("all groups must have the same observation and action spaces")
        self.groups = tuple(groups)
        ends = np.cumsum([group.num_envs for group in groups])
        self.slices = tuple(
            slice(int(end) - group.num_envs, int(end)) for group, end in zip(groups, ends, strict=True)
        )
        super().__init__(int(ends[-1]), first.observation_space, first.action_space)
        self.metadata = first.metadata

    def reset(self) -> Observation:
        """Start new episodes everywhere."""
        observation = concatenate([_dictionary(group.reset()) for group in self.groups])
        self.reset_infos = [info for group in self.groups for info in group.reset_infos]
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Start a step of all groups with actions (B,)."""
        if len(actions) != self.num_envs:
            raise UserError(f"{len(actions)} actions for {self.num_envs} environments: give one for each")
        for group, part in zip(self.groups, self.slices, strict=True):
            group.step_async(actions[part])

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Wait for the step of all groups: observation, rewards (B,), dones (B,), infos."""
        steps = [group.step_wait() for group in self.groups]
        observations, rewards, dones, infos = zip(*steps, strict=True)
        return (
            concatenate([_dictionary(observation) for observation in observations]),
            np.concatenate(rewards),
            np.concatenate(dones),
            [info for part in infos for info in part],
        )

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Draw levels from `seed` from the next `reset` on, differently in each group."""
        seeds = [None] * len(self.groups) if seed is None else group_seeds(seed, len(self.groups))
        return [
            drawn for group, one in zip(self.groups, seeds, strict=True) for drawn in group.seed(one) or ()
        ]

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        for group, part in zip(self.groups, self.slices, strict=True):
            group.set_options(options[part] if isinstance(options, list) else options)

    def get_state(self) -> State:
        """The states of the groups (see `ProcgenVecEnv.get_state`), flat: "1/native" is of the second group."""
        return join_states([group.get_state() for group in self.groups])  # type: ignore[attr-defined]

    def set_state(self, state: State) -> Observation:
        """Continue from `state`; returns the observation.

        Raises:
            UserError: the state is of another number of groups, or does not fit one of them.
        """
        parts = split_states(state, len(self.groups), "groups of environments")
        return concatenate(
            [group.set_state(part) for group, part in zip(self.groups, parts, strict=True)]  # type: ignore[attr-defined]
        )

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        return [image for group in self.groups for image in group.get_images()]

    def close(self) -> None:
        for group in self.groups:
            group.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        return [group.get_attr(attr_name, env)[0] for group, env in self._located(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        for group, env in self._located(indices):
            group.set_attr(attr_name, value, env)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        return [
            group.env_method(method_name, *method_args, indices=env, **method_kwargs)[0]
            for group, env in self._located(indices)
        ]

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        return [group.env_is_wrapped(wrapper_class, env)[0] for group, env in self._located(indices)]

    def _located(self, indices: Indices) -> Iterator[tuple[VecEnv, int]]:
        """The group of each environment in `indices`, and the environment's index within that group."""
        for index in self._get_indices(indices):
            env = range(self.num_envs)[index]
            for group, part in zip(self.groups, self.slices, strict=True):
                if env < part.stop:
                    yield group, env - part.start
                    break


def grouped_procgen(
    games: str | Sequence[str],
    num_envs: int | None = None,
    *,
    groups: int = 2,
    mode: str = "easy",
    levels: str | Levels = "train",
    seed: int = 0,
    num_threads: int = 4,
    part: tuple[int, int] = (0, 1),
    twist: str | None = None,
) -> VecEnv:
    """`ProcgenVecEnv`, with its environments in groups of about equal size, each over a native instance of its own.

    Each group has whole rounds of the games, so environment i still plays `games[i % len(games)]`. With more groups
    than rounds there are as many groups as rounds; one group is a plain `ProcgenVecEnv`. Groups draw their levels from
    seeds of their own, made from `seed`.

    With `part`, as for `ProcgenVecEnv`, each group is one of so many equal parts of the group that there would be
    without; where the groups cannot be cut so, there is one group.

    Raises:
        UserError: as `ProcgenVecEnv`; or fewer than one group.
    """
    if groups < 1:
        raise UserError(f"groups must be at least 1, not {groups}")
    names = expand_games(games)
    total = default_num_envs(len(names), None) if num_envs is None else num_envs
    rounds, rest = divmod(total, max(1, len(names)))
    count = min(groups, max(1, rounds))
    sizes = [len(names) * (rounds // count + (number < rounds % count)) for number in range(count)]
    settings: dict[str, Any] = {
        "mode": mode,
        "levels": levels,
        "num_threads": num_threads,
        "part": part,
        "twist": twist,
    }
    if rest or count == 1 or any(size % part[1] for size in sizes):  # ProcgenVecEnv describes errors
        return ProcgenVecEnv(names, total, seed=seed, **settings)
    return GroupedVecEnv(
        [
            ProcgenVecEnv(names, size, seed=own, **settings)
            for size, own in zip(sizes, group_seeds(seed, count), strict=True)
        ]
    )


def share_a_vector(tasks: Sequence[Task]) -> bool:
    """Whether one native instance can play all `tasks`: different games in one mode on the same levels."""
    kinds = {(task.mode, task.levels) for task in tasks}
    return len(kinds) == 1 and len({task.game for task in tasks}) == len(tasks)


def tasks_at_once(
    tasks: Sequence[Task],
    num_envs: int,
    *,
    groups: int = 1,
    seed: int = 0,
    num_threads: int = 4,
    part: tuple[int, int] = (0, 1),
) -> VecEnv:
    """All `tasks` side by side, as many environments of each.

    Where one native instance can play them (`share_a_vector`), they are the games of `grouped_procgen`, in turn; else
    each task is a group of its own, in order, with a seed of its own made from `seed`, and `groups` says nothing.

    Raises:
        UserError: as `ProcgenVecEnv`; or `num_envs` is not a multiple of the number of tasks.
    """
    if share_a_vector(tasks):
        return grouped_procgen(
            [task.game for task in tasks],
            num_envs,
            groups=groups,
            mode=tasks[0].mode,
            levels=tasks[0].levels,
            seed=seed,
            num_threads=num_threads,
            part=part,
        )
    raise_problems(sharing_problems(num_envs, len(tasks), "tasks"))
    return GroupedVecEnv(
        [
            ProcgenVecEnv(
                [task.game],
                num_envs // len(tasks),
                task.mode,
                task.levels,
                own,
                num_threads=num_threads,
                part=part,
            )
            for task, own in zip(tasks, group_seeds(seed, len(tasks)), strict=True)
        ]
    )


def group_seeds(seed: int, groups: int) -> list[int]:
    """A seed for each group: that of the first is `seed`, the others are unlikely to be anyone's choice."""
    drawn = np.random.SeedSequence(seed).generate_state(groups - 1) if groups > 1 else ()
    return [seed, *(int(number) % MAX_SEED for number in drawn)]


def _dictionary(observation: Any) -> Observation:
    assert isinstance(observation, dict)
    return observation
