"""The film of a recording: its frames are painted and written to one file, or to one for each game."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import BUTTON_COMBOS
from envs.native import FRAMES_PER_SECOND
from evaluation.inspection import Numbers, StepView, layer_of
from evaluation.recording.options import Recording
from evaluation.recording.overlay import HISTORY, Caption, Grid, PolicyPanel, TilePainter, frame_size_for
from evaluation.recording.trace import Frame
from evaluation.recording.video import video_writer
from evaluation.scoring.protocol import Protocol
from policies import Kind


@contextmanager
def film_writer(
    recording: Recording, protocol: Protocol, games: Sequence[str]
) -> Iterator[Callable[[Frame], None]]:
    """Gives a function that adds a frame to films, which appear whole or not at all.

    A frame belongs to the observation that the policy sees, to the value it gives to it and to the action it
    answers with; return and step are those before this action. The last frame of an episode is never seen, so
    its final return is shown as that of the episode before.

    Args:
        recording: names the files, and says what is shown.
        protocol: how the games are played.
        games: the game of each of the N environments.
    """
    tiles = [_Tile(env, game, recording, protocol) for env, game in enumerate(games)]
    groups = [tiles]
    if recording.video_per_game:
        groups = [[tile for tile in tiles if tile.game == game] for game in protocol.games]
    painter = TilePainter(frame_size_for(len(groups[0])), recording.video_overlay)
    grid = Grid(len(groups[0]), painter.size)
    with ExitStack() as stack:
        files = [
            stack.enter_context(video_writer(path, *grid.size, FRAMES_PER_SECOND))
            for path in recording.video_files(protocol.games)
        ]

        def add(frame: Frame) -> None:
            for write, group in zip(files, groups, strict=True):
                write(grid.compose([tile.paint(painter, frame) for tile in group]))

        yield add


def written_shares(view: StepView) -> list[Numbers]:
    """Of each layer, the share of its output that it owes to the weights that it has written, by game."""
    return [share for name, share in view.readings[Kind.SHARE].items() if name.endswith("_share")]


class _Tile:
    """What a film shows of one environment."""

    def __init__(self, env: int, game: str, recording: Recording, protocol: Protocol) -> None:
        self.game = game
        self._env, self._recording = env, recording
        self._split, self._which = protocol.levels[0], ""
        if recording.video_episodes:
            which = recording.video_episodes[env // len(protocol.games)]
            self._which = f", {which} of {recording.video_candidates}"
        self._caption: Caption | None = None
        self._last_return: float | None = None
        # Value, reward, start, norms and shares of the latest steps.
        self._history: deque[tuple[float, float, bool, list[float], list[float]]] = deque(maxlen=HISTORY)

    def paint(self, painter: TilePainter, frame: Frame) -> Image.Image:
        """The tile of the next frame."""
        env, view, step = self._env, frame.view, frame.step
        if frame.active[env]:
            self._caption = self._describe(view)
            norms = [float(norms[env]) for norms in view.readings[Kind.NORM].values()]
            written = [float(share[env]) for share in written_shares(view)]
            moment = float(view.values[env]), float(step.rewards[env]), bool(view.starts[env]), norms, written
            self._history.append(moment)
        elif self._caption is not None:
            self._caption = replace(self._caption, ended=True)
        if step.ended[env]:
            self._last_return = step.infos[env]["episode"]["r"]
        image = view.frames[env]
        assert image is not None
        assert self._caption is not None
        panel = self._panel(view) if self._recording.video_overlay == "full" else None
        return painter.paint(image, self._caption, panel)

    def _describe(self, view: StepView) -> Caption:
        env = self._env
        return Caption(
            game=self.game,
            place=f"{self._split}, level {view.levels[env]}{self._which}",
            episode_return=float(view.returns[env]),
            last_return=self._last_return,
            just_ended=self._last_return is not None and view.steps[env] < FRAMES_PER_SECOND,
            step=int(view.steps[env]),
            value=float(view.values[env]),
            keys=BUTTON_COMBOS[view.actions[env]],
        )

    def _panel(self, view: StepView) -> PolicyPanel:
        values, rewards, starts, norms, shares = zip(*self._history, strict=True)
        rates: dict[str, list[float]] = {}
        for name, rate in view.readings[Kind.RATE].items():
            rates.setdefault(layer_of(name), []).append(float(rate[self._env]))
        weights_name, weights = self._weights(view)
        return PolicyPanel(
            values,
            rewards,
            starts,
            probabilities=view.probabilities[self._env].tolist(),
            action=int(view.actions[self._env]),
            norms=list(zip(*norms, strict=True)),
            shares=list(zip(*shares, strict=True)),
            rates=list(rates.values()),
            weights=weights,
            weights_name=weights_name,
        )

    def _weights(self, view: StepView) -> tuple[str, NDArray[np.float32] | None]:
        """The chosen head of the chosen layer; of the last ones where there are not so many."""
        chosen = f"layer{self._recording.video_layer}"
        names = [name for name in view.weights if layer_of(name) == chosen] or list(view.weights)[-1:]
        if not names:
            return "", None
        tensor = view.weights[names[0]]
        head = min(self._recording.video_head, tensor.shape[1] - 1)
        return f"W - W0, {layer_of(names[0])}, head {head}", tensor[self._env, head].numpy()
