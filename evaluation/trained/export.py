"""``python eval.py export RUN --name NAME``: weights alone, and a card, from a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from agents import read_checkpoint, write_checkpoint
from agents.checkpoint import SUFFIX
from common.cli import Flag, Shown, parse_options
from common.config import Range
from common.errors import UserError, raise_problems
from common.files import write_json
from evaluation.loading import find_checkpoint, load_agent
from evaluation.progress import show_progress
from evaluation.scoring.evaluate import evaluate
from evaluation.scoring.protocol import ALL_SPLITS, Protocol
from evaluation.scoring.results import Results
from evaluation.scoring.table import print_table
from evaluation.trained import CARD_SUFFIX, DIRECTORY
from evaluation.trained.history import History, history_of_run
from records.config import TrainConfig, to_json
from records.directory import RunDirectory

PROGRAM = "python eval.py export"


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
    history = history_of_run(run, config, loaded.agent.num_timesteps)
    if not run.progress_file.is_file():
        raise UserError(f"{run} has no training log: export a run of train.py")
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
    content = weights_only(read_checkpoint(checkpoint), history.steps, config.policy.precision)
    write_checkpoint(weights, {**content, "experiment": to_json(config)})
    write_json(card, make_card(run, config, history, results))
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


def weights_only(content: Mapping[str, Any], steps: int, precision: str) -> dict[str, Any]:
    """The content of a checkpoint without optimizer, environments and recurrent states.

    An agent of it predicts as before; it can be trained on in new episodes, with a fresh optimizer. `steps` are those
    of all training that has made it; `precision` is what its training was asked for, since "auto" shall follow the
    machine that plays it: where bfloat16 is only emulated, the encoder takes fourteen times as long (`early_pool`).
    """
    learner, run = dict(content["learner"]), content["run"]
    learner["optimizer"] = {**learner["optimizer"], "state": {}}
    learner["retention"] = {}
    kept = {name: run[name] for name in ("total_timesteps", "random", "num_envs")}
    return {
        **content,
        "policy_config": {**content["policy_config"], "precision": precision},
        "learner": learner,
        "run": {**kept, "num_timesteps": steps},
    }


def make_card(run: RunDirectory, config: TrainConfig, history: History, results: Results) -> dict[str, Any]:
    """What to know of an agent: settings (`config`), versions, the history of its training, and scores."""
    versions = json.loads((run.path / "versions.json").read_text(encoding="utf-8"))
    return {
        "settings": to_json(config),
        "versions": {name: versions[name] for name in ("python", "torch", "git") if name in versions},
        **history.plain(),
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
