"""``python eval.py export RUN --name NAME``: weights alone, and a card, from a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from agents import Agent, read_checkpoint, write_checkpoint
from agents.checkpoint import SUFFIX
from common.cli import Flag, Shown, parse_options
from common.config import Range
from common.errors import UserError, raise_problems
from common.files import write_json
from evaluation.loading import find_checkpoint, load_agent
from evaluation.progress import show_progress
from evaluation.report.runs import Run
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import ALL_SPLITS, Protocol
from evaluation.scoring.results import Results
from evaluation.scoring.table import print_table
from evaluation.trained import CARD_SUFFIX, DIRECTORY
from records.config import TrainConfig, to_json
from records.directory import RunDirectory

PROGRAM = "python eval.py export"
CURVE_POINTS = 100


@dataclass(frozen=True)
class Options:
    """Score a run's newest checkpoint and keep it for others: its weights, and a card beside them.

    The file of weights is a checkpoint like others, without what only the continuation of the run needs.

    Attributes:
        run: directory of a run of train.py.
        name: what the agent shall be called; NAME.ckpt and NAME.json are written.
        out: directory to write to; by default, that of the agents that come with the suite.
        episodes: episodes of each game and split for the scores in the card.
        greedy: take the most likely action, there and wherever the agent is named; the default is what the run's own
            evaluation does.
        sample: draw actions, as in training.
    """

    run: Annotated[str, Shown("RUN")]
    name: Annotated[str, Shown("NAME", "")] = ""
    out: Annotated[str, Shown("DIR", "evaluation/trained")] = str(DIRECTORY)
    episodes: Annotated[int, Shown("N"), Range(1, 10**6)] = Protocol.episodes
    greedy: Flag = False
    sample: Flag = False


def main(words: Sequence[str]) -> int:
    """Export the run that `words` name; returns the exit code.

    Raises:
        UserError: it is no run that can be scored, or the files cannot be written there; nothing was created then.
        OSError: a file cannot be written.
    """
    options = parse_options(Options, words, PROGRAM, "run")
    run, out = RunDirectory(options.run), Path(options.out)
    raise_problems(_problems(options))
    checkpoint = find_checkpoint(run.path)
    problems: list[str] = []
    loaded = load_agent(str(checkpoint), "cpu", problems)
    raise_problems(problems)
    assert loaded is not None
    greedy = loaded.training.greedy(options.greedy, options.sample)
    config = replace(run.read_config(), evaluation_greedy=greedy)
    protocol = Protocol(
        config.games,
        config.mode,
        ALL_SPLITS if config.mode in ("easy", "hard", "memory") else ("train",),
        options.episodes,
        greedy,
        twist=config.twist,
    )
    console = Console(highlight=False)
    with show_progress(console, "evaluating", "episodes") as report:
        results = evaluate(loaded.agent, protocol, report)
    print_table(results, console)
    weights, card = out / f"{options.name}{SUFFIX}", out / f"{options.name}{CARD_SUFFIX}"
    # The settings as the run's directory has them now: what decides nothing of the training may have been changed.
    write_checkpoint(weights, {**weights_only(read_checkpoint(checkpoint)), "experiment": to_json(config)})
    write_json(card, make_card(run, config, loaded.agent, results))
    console.print(f"Weights: {weights}\nCard: {card}", soft_wrap=True)
    return 0


def _problems(options: Options) -> list[str]:
    found = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", options.name):
        found.append(
            "--name is missing or no name: give lower-case letters, digits and dashes, as easy6-srwm"
        )
    if not Path(options.out).is_dir():
        found.append(f"--out {options.out} is no directory: create it first")
    if options.greedy and options.sample:
        found.append("--greedy and --sample contradict each other: give one of them")
    return found


def weights_only(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint without optimizer, environments and recurrent states.

    An agent of it predicts as before; it can be trained on in new episodes, with a fresh optimizer.
    """
    learner, run = dict(content["learner"]), content["run"]
    learner["optimizer"] = {**learner["optimizer"], "state": {}}
    learner["retention"] = {}
    kept = ("num_timesteps", "total_timesteps", "random", "num_envs")
    return {**content, "learner": learner, "run": {name: run[name] for name in kept}}


def make_card(run: RunDirectory, config: TrainConfig, agent: Agent, results: Results) -> dict[str, Any]:
    """What to know of an agent: settings (`config`), commands, versions, steps, hours of training, curve and scores.

    The curve is the mean training return of each game's last 100 episodes, by steps of all environments together;
    hours are those in which the run played and learned, saving and evaluating left out.

    Raises:
        UserError: the run has no training log.
    """
    curve = Run(run, config).curve()
    until = curve.steps <= agent.num_timesteps
    if not until.any():
        raise UserError(f"{run} has no training log: export a run of train.py")
    stride = max(1, -(-int(until.sum()) // CURVE_POINTS))
    kept = slice(stride - 1, int(until.sum()), stride)
    versions = json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    return {
        "settings": to_json(config),
        "commands": (run.path / "command.txt").read_text(encoding="utf-8").splitlines(),
        "versions": {name: versions[name] for name in ("python", "torch", "git") if name in versions},
        "steps": agent.num_timesteps,
        "hours": round(float(curve.seconds[until][-1]) / 3600, 4),
        "curve": {
            "steps": curve.steps[kept].astype(int).tolist(),
            **{game: _plain(curve.returns[game][kept]) for game in config.games},
        },
        "protocol": results.protocol.text,
        "scores": [
            {
                "game": score.game,
                "split": score.levels.name,
                "mean": round(score.raw.mean, 3),
                "standard_error": round(score.raw.standard_error, 3),
                "episodes": len(score.episodes),
            }
            for score in results.scores
        ],
    }


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [round(float(value), 3) if np.isfinite(value) else None for value in values]
