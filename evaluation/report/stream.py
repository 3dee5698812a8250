"""Adaptation in a stream of games, for the recurrent groups of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from common.config import plain
from common.errors import raise_problems
from common.files import write_json
from envs import parse_task_duration
from evaluation.agent_info import reset_text
from evaluation.loading import load_to_play
from evaluation.report.gather import Announce, Group, Study, named_file, read_stored, silent
from evaluation.report.plots import Plot, draw_band, draw_panels
from evaluation.report.runs import Run
from evaluation.report.statistics import Scores
from evaluation.report.tables import NOTHING, Table, heading, plus_minus, runs_text
from evaluation.streams import (
    StreamEpisode,
    StreamProtocol,
    adaptation_curve,
    from_json,
    play_streams,
    to_json,
)


@dataclass(frozen=True)
class StreamScores:
    """What the recurrent groups of a report did in streams of games.

    Attributes:
        curves: By label and reset condition, the normalised score by episodes since the switch, (runs, places).
    """

    protocol: StreamProtocol
    groups: tuple[Group, ...]
    curves: Mapping[tuple[str, str], Scores]


def stream_groups(study: Study) -> tuple[Group, ...]:
    """The groups that can adapt: several games in one run, and a memory."""
    return tuple(
        group
        for group in study.groups
        if group.reset is None and group.agent.recurrent and len(group.config.games) > 1
    )


def gather_streams(study: Study, protocol: StreamProtocol, announce: Announce = silent) -> StreamScores:
    """Play the streams that have not been played yet.

    Raises:
        UserError: The protocol cannot be played, or no run can play it.
    """
    groups = stream_groups(study)
    problems = protocol.problems()
    if not groups:
        problems.append("--stream needs a run of several games whose policy has a memory")
    raise_problems(problems)
    curves: dict[tuple[str, str], Scores] = {}
    for group in groups:
        played = [_episodes(run, protocol, announce) for run in group.runs]
        for condition in protocol.reset_conditions:
            each = [adaptation_curve(episodes, condition, protocol.games) for episodes in played]
            places = min(map(len, each))
            curves[group.label, condition] = np.array([curve[:places] for curve in each])
    return StreamScores(protocol, groups, curves)


def _episodes(run: Run, protocol: StreamProtocol, announce: Announce) -> list[StreamEpisode]:
    chosen = "greedy" if protocol.greedy else "sampled"
    size, conditions = f"{protocol.streams}x{protocol.tasks}", protocol.reset_conditions
    parts = [chosen, protocol.split, protocol.task_duration, size, *conditions, f"seed{protocol.seed}"]
    path = named_file(run, ["stream", *parts])
    checkpoint = run.checkpoint
    stored = read_stored(path, checkpoint, plain(protocol))
    if stored is not None:
        return from_json(stored)
    agent = load_to_play(checkpoint)
    with announce(run, None) as report:
        episodes = play_streams(agent, protocol, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"checkpoint": checkpoint.name, **to_json(protocol, episodes)})
    return episodes


def condition_text(condition: str) -> str:
    """A reset condition in words."""
    words = {
        "carried": "never cleared",
        "switch": "cleared at each switch",
        "episode": "cleared at each episode",
    }
    return words.get(condition, f"cleared every {condition} steps")


def stream_notes(scores: StreamScores) -> tuple[str, ...]:
    """How the streams were played, and how to read the result."""
    protocol = scores.protocol
    chosen = "greedy (most likely) actions" if protocol.greedy else "sampled actions"
    trained = "; ".join(
        f"{group.label}: memory reset {reset_text(group.agent.reset)} in training, gradient horizon "
        f"{group.agent.horizon_text}, {runs_text(len(group.rows))}"
        for group in scores.groups
    )
    return (
        "Normalised score of the first, second, ... episode since the switch to another game, mean over the "
        f"{len(protocol.games)} games. The switch is not announced, and the memory is cleared only as the line says.",
        f"{chosen}; levels {protocol.split} drawn with replacement; "
        f"tasks of {parse_task_duration(protocol.task_duration)}; "
        f"{protocol.streams} streams of {protocol.tasks} scored tasks each, the same for every line; "
        f"{protocol.mode} mode; seed {protocol.seed}.",
        f"{trained}.",
    )


def stream_table(scores: StreamScores) -> Table:
    """Score by episodes since the switch, for each reset condition."""
    places = max((curve.shape[1] for curve in scores.curves.values()), default=0)
    rows = []
    for group in scores.groups:
        for condition in scores.protocol.reset_conditions:
            curve = scores.curves[group.label, condition]
            cells = [
                plus_minus(curve[:, place], len(curve), 3) if place < curve.shape[1] else NOTHING
                for place in range(places)
            ]
            gain = plus_minus(curve[:, -1] - curve[:, 0], len(curve), 3) if curve.shape[1] > 1 else NOTHING
            rows.append((heading(group), condition_text(condition), *cells, gain))
    header = ("group", "memory", *(f"episode {place + 1}" for place in range(places)), "last minus first")
    notes = ("± standard error over runs (none for one seed).", *stream_notes(scores))
    if not places:
        notes = (
            f"In so few tasks some of the {len(scores.protocol.games)} games did not come, and a mean over all of them "
            "cannot be made: play more (--tasks, --streams).",
            *notes,
        )
    return Table("stream", "Adaptation in a stream of games", header, tuple(rows), notes)


def stream_plot(scores: StreamScores) -> Plot:
    """A panel for each group, a line for each reset condition."""

    def draw(group: Group, axes: Axes) -> None:
        for index, condition in enumerate(scores.protocol.reset_conditions):
            curve = scores.curves[group.label, condition]
            places = np.arange(1, curve.shape[1] + 1)
            draw_band(axes, places, curve, index, condition_text(condition), marker="o")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    panels = [(heading(group), partial(draw, group)) for group in scores.groups]
    svg = draw_panels(panels, "episodes since the switch", "normalised score", "stream", shared=True)
    note = "Line: mean over runs; band: from the lowest to the highest run (none for one seed)."
    return Plot("stream", "Adaptation in a stream of games", svg, (note,))


def streams_json(scores: StreamScores) -> dict[str, Any]:
    """The curves as plain JSON values."""
    return {
        "protocol": plain(scores.protocol),
        "curves": [
            {"group": label, "memory": condition, "normalized": curve.tolist()}
            for (label, condition), curve in scores.curves.items()
        ],
    }


def default_protocol(study: Study) -> StreamProtocol:
    """Streams of the study's games on its first unseen split, with actions chosen as in its other scores."""
    scored = study.protocol
    split = next(iter((*study.unseen, *study.familiarity)))
    return StreamProtocol(
        scored.games, scored.mode, split, greedy=scored.greedy, seed=scored.seed, twist=scored.twist
    )
