"""Record an agent at play: a film, a trace of everything that happened, or both."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from agents import Agent
from common.errors import raise_problems, unknown_name
from envs import BUTTON_COMBOS, ProcgenVecEnv, environment_problems
from envs.native import ACTION_NAMES, FRAMES_PER_SECOND, NO_OP
from evaluation.scoring.evaluate import Progress, no_progress
from evaluation.recording.overlay import HISTORY, STYLES, Caption, Grid, Thoughts, TilePainter, frame_size_for
from evaluation.inspection import Outcome, Player, Sight
from evaluation.agent_info import agent_problems, policy_with_reset
from evaluation.recording.replay import PICKS, Take, native_mode, pick, play_takes
from evaluation.recording.trace import Trace, TraceWriter, row, stack
from evaluation.recording.video import VideoWriter
from policies import Policy

DEFAULT_FRAMES = 450
"""Half a minute at ProcGen's human speed."""


@dataclass(frozen=True)
class Film:
    """What a film shows and how.

    Attributes:
        style: "plain" frames, with "scores" around them, or the "full" display of what the policy thinks.
        separate: one file for each game, with the game's name before the suffix, instead of a grid of all.
        picks: "best", "worst", "median": these of several episodes, whole, instead of a stretch of time.
        candidates: episodes of each game among which they are picked.
        layer, head: whose weights the full style shows.
    """

    style: str = "scores"
    separate: bool = False
    picks: tuple[str, ...] = ()
    candidates: int = 20
    layer: int = 0
    head: int = 0

    def problems(self) -> list[str]:
        """Everything that is wrong with it, a line each."""
        found = [] if self.style in STYLES else [unknown_name("overlay", self.style, STYLES)]
        found += [
            unknown_name("choice of episodes", which, PICKS) for which in self.picks if which not in PICKS
        ]
        if len(set(self.picks)) < len(self.picks):
            found.append(f"episodes {' '.join(self.picks)} are listed more than once: list each once")
        if self.candidates < 1:
            found.append(f"{self.candidates} candidates: give 1 or more")
        found += [
            f"{name} is {value}: give 0 or more"
            for name, value in (("layer", self.layer), ("head", self.head))
            if value < 0
        ]
        return found


def record(
    agent: Agent,
    games: Sequence[str],
    path: str | os.PathLike[str] | None,
    *,
    mode: str = "easy",
    levels: str = "test1",
    frames: int = DEFAULT_FRAMES,
    greedy: bool = True,
    seed: int = 0,
    reset: str | None = None,
    film: Film = Film(),
    trace: str | os.PathLike[str] | None = None,
    trace_frames: bool = False,
    trace_meta: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> Trace:
    """Play `games` side by side in environments of their own, and write a film of it.

    Args:
        agent: as for `evaluate`; it is left as it was.
        games: what to play, one tile each.
        path: of the film, ending in .mp4, .webm or .gif; its directory must exist; a file there is replaced once the
            new one is whole. None for a trace alone, for which nothing is rendered.
        mode: of the games.
        levels: that are drawn: train, test1, test2, test3, all or "A:B".
        frames: length, where no episodes are picked; ProcGen is meant to be watched at 15 frames a second.
        greedy: take the most likely action instead of drawing one.
        seed: of levels and actions.
        reset: reset rule in place of the agent's own.
        film: what it shows and how.
        trace: a file for everything that happened; see `evaluation.recording.trace`.
        trace_frames: whether that keeps what the policy saw.
        trace_meta: facts to be kept in it.
        progress: called after each frame with numbers of frames.

    Returns:
        What happened, but for frames and weights.

    Raises:
        UserError: games, mode, levels, film or reset rule do not exist, or the agent is not for ProcGen.
        OSError: a file cannot be written.
    """
    problems = [*environment_problems(games, len(games), mode, levels, seed), *agent_problems(agent)]
    problems += film.problems()
    if frames < 1:
        problems.append(f"a video of {frames} frames cannot be made: record 1 or more")
    raise_problems(problems)
    policy = policy_with_reset(agent, reset)
    render = "rgb_array" if path is not None else None
    scenes: _Scenes
    if film.picks:
        played = {
            game: play_takes(
                policy, game, film.candidates, mode=mode, levels=levels, greedy=greedy, seed=seed
            )
            for game in games
        }
        takes = [pick(played[game], which) for which in film.picks for game in games]
        places = [f"{which} of {film.candidates}" for which in film.picks for _ in games]
        scenes = _Replay(policy, takes, places, mode, levels, render)
    else:
        env = ProcgenVecEnv(games, len(games), mode, levels, seed, render_mode=render)
        generator = torch.Generator(agent.device).manual_seed(seed)
        scenes = _Stretch(Player(policy, env, generator, greedy), frames)
    meta = {
        "games": scenes.games,
        "mode": mode,
        "levels": levels,
        "greedy": greedy,
        "seed": seed,
        "reset": reset or agent.policy.config.reset,
        "episodes": list(film.picks),
        **(trace_meta or {}),
    }
    rows: list[dict[str, NDArray[Any]]] = []
    with ExitStack() as stack_of_files:
        stack_of_files.callback(scenes.close)
        camera = (
            stack_of_files.enter_context(_Camera(Path(path), list(games), scenes.games, film))
            if path is not None
            else None
        )
        writer = (
            stack_of_files.enter_context(TraceWriter(trace, scenes.length, meta, trace_frames))
            if trace is not None
            else None
        )
        for done, scene in enumerate(scenes.play(), 1):
            rows.append(row(scene.sight, scene.outcome, scene.playing))
            if writer is not None:
                writer.add(scene.sight, scene.outcome, scene.playing)
            if camera is not None:
                camera.shoot(scene)
            progress(done, scenes.length, ", ".join(games))
    return stack(rows)


@dataclass(frozen=True)
class _Scene:
    """One frame of a recording.

    A frame belongs to the observation that the policy sees, to the value it gives to it and to the action it
    answers with; return and step are those before this action. The last frame of an episode is never seen, so
    its final return is shown as that of the episode before.
    """

    sight: Sight
    outcome: Outcome
    captions: list[Caption]
    playing: NDArray[np.bool_]


class _Scenes:
    """Scenes of N games, `length` of them."""

    games: list[str]
    length: int

    def __init__(self, player: Player, length: int) -> None:
        self._player, self.length = player, length
        self.games = player.env.get_attr("game")
        self._last_returns: list[float | None] = [None] * len(self.games)

    def play(self) -> Iterator[_Scene]:
        """The scenes, once."""
        raise NotImplementedError

    def close(self) -> None:
        """Free the environments."""
        self._player.env.close()

    def _captions(
        self, sight: Sight, places: Sequence[str], playing: NDArray[np.bool_] | None = None
    ) -> list[Caption]:
        return [
            Caption(
                game=self.games[slot],
                place=place,
                episode_return=float(sight.returns[slot]),
                last_return=self._last_returns[slot],
                just_ended=self._last_returns[slot] is not None and sight.steps[slot] < FRAMES_PER_SECOND,
                step=int(sight.steps[slot]),
                value=float(sight.values[slot]),
                keys=BUTTON_COMBOS[sight.actions[slot]],
                ended=playing is not None and not playing[slot],
            )
            for slot, place in enumerate(places)
        ]


class _Stretch(_Scenes):
    """A stretch of time, through as many episodes as come."""

    def play(self) -> Iterator[_Scene]:
        env = self._player.env
        everything = np.ones(env.num_envs, dtype=bool)
        for _ in range(self.length):
            sight = self._player.decide()
            captions = self._captions(sight, [f"{env.levels}, level {level}" for level in sight.levels])
            outcome = self._player.collect()
            for slot in np.flatnonzero(outcome.ended):
                self._last_returns[slot] = outcome.infos[slot]["episode"]["r"]
            yield _Scene(sight, outcome, captions, everything)


class _Replay(_Scenes):
    """Episodes from their first to their last step; short ones wait for the longest."""

    def __init__(
        self,
        policy: Policy,
        takes: Sequence[Take],
        places: Sequence[str],
        mode: str,
        levels: str,
        render: str | None,
    ) -> None:
        games = list(dict.fromkeys(take.game for take in takes))
        env = ProcgenVecEnv(
            games,
            len(takes),
            native_mode(mode),
            "all",
            render_mode=render,
            level_seeds=[take.level for take in takes],
        )
        player = Player(policy, env, torch.Generator(policy.device))
        super().__init__(player, max(len(take.actions) for take in takes))
        self._takes = takes
        self._places = [
            f"{levels}, level {take.level}, {place}" for take, place in zip(takes, places, strict=True)
        ]

    def play(self) -> Iterator[_Scene]:
        last: tuple[Sight, list[Caption]] | None = None
        for step in range(self.length):
            playing = np.array([step < len(take.actions) for take in self._takes])
            actions = [take.actions[step] if step < len(take.actions) else NO_OP for take in self._takes]
            sight = self._player.decide(waiting=~playing, forced=np.array(actions))
            outcome = self._player.collect()
            captions = self._captions(sight, self._places, playing)
            if last is not None:
                sight = _held(sight, last[0], playing)
                captions = [
                    new if here else replace(old, ended=True)
                    for here, new, old in zip(playing, captions, last[1], strict=True)
                ]
            self._check(step, outcome)
            for slot, take in enumerate(self._takes):
                if step == len(take.actions) - 1:
                    self._last_returns[slot] = take.score
            last = sight, captions
            yield _Scene(sight, outcome, captions, playing)

    def _check(self, step: int, outcome: Outcome) -> None:
        for slot, take in enumerate(self._takes):
            if step == len(take.actions) - 1 and (
                not outcome.ended[slot] or outcome.infos[slot]["episode"]["r"] != take.score
            ):
                raise RuntimeError(f"level {take.level} of {take.game} did not go as it went before")


def _held(sight: Sight, last: Sight, playing: NDArray[np.bool_]) -> Sight:
    """`sight`, with what `last` says of the games that have ended."""

    def choose(new: Any, old: Any) -> Any:
        return np.where(playing.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    names = ("rgb", "levels", "steps", "returns", "starts", "values", "probabilities", "actions")
    arrays = {name: choose(getattr(sight, name), getattr(last, name)) for name in names}
    frames = (
        [new if here else old for here, new, old in zip(playing, sight.frames, last.frames, strict=True)]
        if sight.frames
        else []
    )
    facts = {name: choose(values, last.facts[name]) for name, values in sight.facts.items()}
    return Sight(**arrays, frames=frames, facts=facts, weights=sight.weights)


class _Camera:
    """Paints scenes and writes them to one film, or to one for each game."""

    def __init__(self, path: Path, games: list[str], slots: list[str], film: Film) -> None:
        groups = [[slot for slot, name in enumerate(slots) if name == game] for game in games]
        if not film.separate:
            groups = [list(range(len(slots)))]
        self._painter = TilePainter(frame_size_for(len(groups[0])), film.style)
        self._grid = Grid(len(groups[0]), self._painter.size)
        names = [film_path(path, game) for game in games] if film.separate else [path]
        self._films = list(zip(names, groups, strict=True))
        self._minds = [_Mind(slot, film) for slot in range(len(slots))]
        self._full = film.style == "full"
        self._stack = ExitStack()

    def __enter__(self) -> _Camera:
        with ExitStack() as stack:
            self._writers = [
                (stack.enter_context(VideoWriter(path, *self._grid.size, FRAMES_PER_SECOND)), group)
                for path, group in self._films
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def shoot(self, scene: _Scene) -> None:
        """The next frame."""
        for writer, group in self._writers:
            writer.write(self._grid.compose([self._tile(scene, slot) for slot in group]))

    def _tile(self, scene: _Scene, slot: int) -> Image.Image:
        thoughts = self._minds[slot].thoughts(scene) if self._full else None
        return self._painter.paint(scene.sight.frames[slot], scene.captions[slot], thoughts)


def film_path(path: Path, game: str) -> Path:
    """Where the film of one game goes: film.mp4 becomes film-maze.mp4."""
    return path.with_name(f"{path.stem}-{game}{path.suffix}")


class _Mind:
    """The latest thoughts about one game."""

    def __init__(self, slot: int, film: Film) -> None:
        self._slot, self._film = slot, film
        self._values: deque[float] = deque(maxlen=HISTORY)
        self._rewards: deque[float] = deque(maxlen=HISTORY)
        self._starts: deque[bool] = deque(maxlen=HISTORY)
        self._norms: dict[str, deque[float]] = {}

    def thoughts(self, scene: _Scene) -> Thoughts:
        """What to show beside a scene. Call it once for each."""
        slot, sight = self._slot, scene.sight
        if scene.playing[slot]:
            self._values.append(float(sight.values[slot]))
            self._rewards.append(float(scene.outcome.rewards[slot]))
            self._starts.append(bool(sight.starts[slot]))
            for name, values in sight.facts.items():
                if name.endswith("_norm"):
                    self._norms.setdefault(name, deque(maxlen=HISTORY)).append(float(values[slot]))
        rates: dict[str, list[float]] = {}
        for name, values in sight.facts.items():
            layer, _, fact = name.partition("/")
            if fact.startswith("rate"):
                rates.setdefault(layer, []).append(float(values[slot]))
        name, weights = self._weights(sight)
        action = int(sight.actions[slot])
        return Thoughts(
            values=list(self._values),
            rewards=list(self._rewards),
            starts=list(self._starts),
            probabilities=[float(p) for p in sight.probabilities[slot]],
            action=action,
            action_name=ACTION_NAMES[action],
            norms=[list(norm) for norm in self._norms.values()],
            rates=list(rates.values()),
            weights=weights,
            weights_name=name,
        )

    def _weights(self, sight: Sight) -> tuple[str, NDArray[np.float32] | None]:
        """The chosen head of the chosen layer; of the last ones where there are not so many."""
        names = [name for name in sight.weights if name.startswith(f"layer{self._film.layer}/")]
        if not names:
            names = list(sight.weights)[-1:]
        if not names:
            return "", None
        tensor = sight.weights[names[0]]
        head = min(self._film.head, tensor.shape[1] - 1)
        matrix: NDArray[np.float32] = tensor[self._slot, head].numpy()
        return f"W - W0, {names[0].partition('/')[0]}, head {head}", matrix
