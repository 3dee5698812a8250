"""The film of a recording: its frames are painted and written to one file, or to one for each game."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import BUTTON_COMBOS
from envs.native import ACTION_NAMES, FRAMES_PER_SECOND
from evaluation.inspection import StepView, layer_of
from evaluation.recording.options import Recording
from evaluation.recording.overlay import HISTORY, Caption, Grid, PolicyPanel, TilePainter, frame_size_for
from evaluation.recording.trace import Frame
from evaluation.recording.video import VideoWriter
from evaluation.scoring.protocol import Protocol
from policies import Kind


class Film:
    """Films that appear whole or not at all, when the context is left without an error.

    A frame belongs to the observation that the policy sees, to the value it gives to it and to the action it
    answers with; return and step are those before this action. The last frame of an episode is never seen, so
    its final return is shown as that of the episode before.

    Args:
        recording: names the files, and says what is shown.
        protocol: how the games are played.
        games: the game of each of the N environments.
    """

    def __init__(self, recording: Recording, protocol: Protocol, games: Sequence[str]) -> None:
        self._recording, self._protocol, self._games = recording, protocol, games
        everything = range(len(games))
        groups = [list(everything)]
        if recording.video_per_game:
            groups = [[env for env in everything if games[env] == game] for game in protocol.games]
        self._files = list(zip(recording.video_files(protocol.games), groups, strict=True))
        self._painter = TilePainter(frame_size_for(len(groups[0])), recording.video_overlay)
        self._grid = Grid(len(groups[0]), self._painter.size)
        self._captions: dict[int, Caption] = {}
        self._last_returns: dict[int, float] = {}
        self._panels = [_PanelHistory(env, recording.video_layer, recording.video_head) for env in everything]
        self._writers: list[tuple[VideoWriter, list[int]]] = []
        self._stack = ExitStack()

    def __enter__(self) -> Film:
        with ExitStack() as stack:
            self._writers = [
                (stack.enter_context(VideoWriter(path, *self._grid.size, FRAMES_PER_SECOND)), group)
                for path, group in self._files
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, frame: Frame) -> None:
        """The next frame."""
        for env, active in enumerate(frame.active):
            if active:
                self._captions[env] = self._caption(frame.view, env)
            else:
                self._captions[env] = replace(self._captions[env], ended=True)
        for env in np.flatnonzero(frame.step.ended):
            self._last_returns[int(env)] = frame.step.infos[env]["episode"]["r"]
        for writer, group in self._writers:
            writer.write(self._grid.compose([self._tile(frame, env) for env in group]))

    def _caption(self, view: StepView, env: int) -> Caption:
        last = self._last_returns.get(env)
        place = f"{self._protocol.levels[0]}, level {view.levels[env]}"
        if self._recording.video_episodes:
            which = self._recording.video_episodes[env // len(self._protocol.games)]
            place += f", {which} of {self._recording.video_candidates}"
        return Caption(
            game=self._games[env],
            place=place,
            episode_return=float(view.returns[env]),
            last_return=last,
            just_ended=last is not None and view.steps[env] < FRAMES_PER_SECOND,
            step=int(view.steps[env]),
            value=float(view.values[env]),
            keys=BUTTON_COMBOS[view.actions[env]],
        )

    def _tile(self, frame: Frame, env: int) -> Image.Image:
        panel = self._panels[env].add(frame) if self._recording.video_overlay == "full" else None
        image = frame.view.frames[env]
        assert image is not None
        return self._painter.paint(image, self._captions[env], panel)


class _PanelHistory:
    """What the panel of one environment shows: the latest steps, and the weights of one layer and head."""

    def __init__(self, env: int, layer: int, head: int) -> None:
        self._env, self._layer, self._head = env, layer, head
        self._values: deque[float] = deque(maxlen=HISTORY)
        self._rewards: deque[float] = deque(maxlen=HISTORY)
        self._starts: deque[bool] = deque(maxlen=HISTORY)
        self._norms: dict[str, deque[float]] = {}

    def add(self, frame: Frame) -> PolicyPanel:
        """Add a frame; what to show beside it."""
        env, view = self._env, frame.view
        if frame.active[env]:
            self._values.append(float(view.values[env]))
            self._rewards.append(float(frame.step.rewards[env]))
            self._starts.append(bool(view.starts[env]))
            for name, norms in view.readings[Kind.NORM].items():
                self._norms.setdefault(name, deque(maxlen=HISTORY)).append(float(norms[env]))
        rates: dict[str, list[float]] = {}
        for name, values in view.readings[Kind.RATE].items():
            rates.setdefault(layer_of(name), []).append(float(values[env]))
        name, weights = self._weights(view)
        action = int(view.actions[env])
        return PolicyPanel(
            values=list(self._values),
            rewards=list(self._rewards),
            starts=list(self._starts),
            probabilities=[float(p) for p in view.probabilities[env]],
            action=action,
            action_name=ACTION_NAMES[action],
            norms=[list(norm) for norm in self._norms.values()],
            rates=list(rates.values()),
            weights=weights,
            weights_name=name,
        )

    def _weights(self, view: StepView) -> tuple[str, NDArray[np.float32] | None]:
        """The chosen head of the chosen layer; of the last ones where there are not so many."""
        names = [name for name in view.weights if layer_of(name) == f"layer{self._layer}"]
        names = names or list(view.weights)[-1:]
        if not names:
            return "", None
        tensor = view.weights[names[0]]
        head = min(self._head, tensor.shape[1] - 1)
        matrix: NDArray[np.float32] = tensor[self._env, head].numpy()
        return f"W - W0, {layer_of(names[0])}, head {head}", matrix
