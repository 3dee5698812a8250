"""IMPALA: what one update does, exact continuation, and rollouts that lag."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import KVWriter, Logger

import agents
from agents import IMPALA, PPO, Agent, ImpalaConfig, read_checkpoint
from agents.learner import Losses
from agents.rollout import Batch
from helpers import assert_same
from policies import CORES, PolicyConfig

NUM_ENVS, UNROLL = 6, 8
ROLLOUT = NUM_ENVS * UNROLL

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]
MakeBatch = Callable[..., Batch]


def weights(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Rows(KVWriter):
    """Keeps what is logged, without the times."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.rows.append(
            {tag: value for tag, value in key_values.items() if not tag.startswith(("time/sps", "memory/"))}
        )

    def close(self) -> None:
        pass


def log_rows(agent: Agent) -> list[dict[str, Any]]:
    """What `agent` logs from now on."""
    writer = Rows()
    agent.set_logger(Logger(None, [writer]))
    return writer.rows


class OnStep(BaseCallback):
    """Does something after step `number` of all environments (counted from 1); may stop the training there."""

    def __init__(
        self, number: int, action: Callable[[Any], Any] = lambda agent: None, stop: bool = False
    ) -> None:
        super().__init__()
        self.number, self.action, self.stop = number, action, stop

    def _on_step(self) -> bool:
        if self.n_calls != self.number:
            return True
        self.action(self.model)
        return not self.stop


# One update


def keep_gradients(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make updates leave the weights as they are, and the gradients unclipped."""
    monkeypatch.setattr(agent.optimizer, "step", lambda: None)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **options: torch.tensor(0.0))


def test_every_parameter_of_every_core_is_trained(
    core: str, tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(tiny(core), toy(4), seed=0, rollout_steps=5)
    keep_gradients(agent, monkeypatch)
    agent.learner.learn(random_batch(agent.policy, steps=5, num_envs=4), 0)
    for name, parameter in agent.policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() > 0, name
    if core == "srwm":
        gradient = agent.policy.core.layers[0].w0.grad  # (H, D, 3 D + 4)
        width = gradient.shape[1]
        for part in gradient.split([width, width, width, 1, 1, 1, 1], dim=-1):  # y, q, k and four rates
            assert (part.flatten(1).abs().sum(1) > 0).all()


def test_with_the_published_horizon_the_update_of_the_matrix_is_not_trained(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would notice: with a horizon of one step there is no gradient to q, k and beta."""
    agent = IMPALA(tiny("srwm", bptt_span=1), toy(4), seed=0, rollout_steps=5)
    keep_gradients(agent, monkeypatch)
    agent.learner.learn(random_batch(agent.policy, steps=5, num_envs=4), 0)
    gradient = agent.policy.core.layers[0].w0.grad
    width = gradient.shape[1]
    assert gradient[..., :width].count_nonzero() > 0
    assert gradient[..., width:].count_nonzero() == 0


def loss_by_hand(agent: IMPALA, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a batch in float64 with plain loops, and its gradients."""
    config, policy = agent.config, deepcopy(agent.policy).double()
    state = {name: tensor.double() for name, tensor in batch.initial_state.items()}
    output = policy(batch.rgb, batch.reward_input.double(), state, batch.episode_start)
    steps, num_envs = batch.actions.shape
    total = torch.zeros((), dtype=torch.float64)
    for b in range(num_envs):
        value = [output.value[t, b] for t in range(steps + 1)]
        fixed = [v.item() for v in value]
        log_prob, rho, trace, discount, reward = [], [], [], [], []
        for t in range(steps):
            probabilities = output.logits[t, b].softmax(0)
            log_prob.append(probabilities[batch.actions[t, b]].log())
            ratio = log_prob[t].exp().item() / math.exp(batch.log_probs[t, b].item())
            rho.append(min(config.rho_clip, ratio))
            trace.append(config.trace_lambda * min(config.c_clip, ratio))
            discount.append(0.0 if batch.dones[t, b] else config.discount)
            reward.append(batch.rewards[t, b].item())
            total = total + config.entropy_cost * (probabilities * probabilities.log()).sum()
        target = [*fixed]
        for t in reversed(range(steps)):
            delta = rho[t] * (reward[t] + discount[t] * fixed[t + 1] - fixed[t])
            target[t] = fixed[t] + delta + discount[t] * trace[t] * (target[t + 1] - fixed[t + 1])
        for t in range(steps):
            advantage = rho[t] * (reward[t] + discount[t] * target[t + 1] - fixed[t])
            total = total - log_prob[t] * advantage
            total = total + config.value_cost * 0.5 * (target[t] - value[t]) ** 2
    total.backward()
    return total.detach(), {name: parameter.grad for name, parameter in policy.named_parameters()}


def test_loss_and_gradient_are_those_written_by_hand(
    core: str, tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"entropy_cost": 0.3, "value_cost": 0.7, "discount": 0.9}
    clips = {"rho_clip": 1.3, "c_clip": 0.8, "trace_lambda": 0.9}
    agent = IMPALA(tiny(core), toy(3), seed=1, rollout_steps=4, **settings, **clips)
    keep_gradients(agent, monkeypatch)
    batch = random_batch(agent.policy, steps=4, num_envs=3, seed=5)
    metrics = agent.learner.learn(batch, 0)
    loss, gradients = loss_by_hand(agent, batch)
    assert 0.0 < metrics["rho_clipped"] < 1.0
    assert batch.dones.any()
    assert metrics["loss"] * 12 == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in agent.policy.named_parameters():
        torch.testing.assert_close(
            parameter.grad.double(),
            gradients[name],
            rtol=1e-3,
            atol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_an_update_is_rmsprop_on_the_clipped_gradient(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_grad_norm": 0.5, "rmsprop_alpha": 0.9, "rmsprop_eps": 0.02, "learning_rate": 0.003}
    agent = IMPALA(tiny("lstm"), toy(4), seed=0, rollout_steps=5, **settings)
    batch = random_batch(agent.policy, steps=5, num_envs=4)
    with monkeypatch.context() as patch:
        keep_gradients(agent, patch)
        agent.learner.learn(batch, 0)
        gradients = {name: parameter.grad.clone() for name, parameter in agent.policy.named_parameters()}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    before = weights(agent)
    assert agent.learner.learn(batch, 0)["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert norm > 0.5
    for name, weight in agent.policy.state_dict().items():
        gradient = gradients[name] * 0.5 / norm
        expected = before[name] - 0.003 * gradient / ((0.1 * gradient**2).sqrt() + 0.02)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)


def test_each_unroll_is_used_once_and_updates_have_the_asked_size(
    tiny: Tiny, toy: MakeEnv, random_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(tiny("lstm"), toy(6), seed=0, rollout_steps=3, batch_unrolls=2)
    batch = random_batch(agent.policy, steps=3, num_envs=6)
    marked = batch.select(torch.arange(6))
    marked.rewards[:] = torch.arange(6.0)
    seen: list[list[float]] = []
    losses = agent.learner.losses

    def watch(part: Batch) -> Losses:
        seen.append(part.rewards[0].tolist())
        return losses(part)

    monkeypatch.setattr(agent.learner, "losses", watch)
    agent.learner.learn(marked, 0)
    first = [*seen]
    agent.learner.learn(marked, 0)
    assert [len(group) for group in first] == [2, 2, 2]
    assert sorted(itertools.chain(*first)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert seen[3:] != first  # in another order each time
    assert agent.learner.updates == 6
    seen.clear()
    agent.learner.config = replace(agent.config, passes=3)
    agent.learner.learn(marked, 0)
    for part in range(3):
        assert sorted(itertools.chain(*seen[3 * part : 3 * part + 3])) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("num_envs", "sizes"),
    [
        (1, [1]),
        (7, [7]),
        (32, [32]),
        (37, [19, 18]),  # 37 is prime: no equal parts, but no batches of a single unroll either
        (48, [24, 24]),
        (64, [32, 32]),
        (66, [22, 22, 22]),
        (96, [32, 32, 32]),
    ],
)
def test_updates_are_as_large_as_published_where_that_divides(num_envs: int, sizes: list[int]) -> None:
    def batch_sizes(config: ImpalaConfig) -> list[int]:
        return [len(part) for part in torch.arange(num_envs).tensor_split(config.batches_per_pass(num_envs))]

    assert batch_sizes(ImpalaConfig()) == sizes
    assert batch_sizes(ImpalaConfig(batch_unrolls=1)) == [1] * num_envs
    assert ImpalaConfig().problems(num_envs) == []


# What the learner gets


@pytest.mark.parametrize("sequences", [1, 2])
def test_what_the_learner_gets_is_what_the_policy_did(
    sequences: int, core: str, tiny: Tiny, procgen: MakeEnv
) -> None:
    """On real games: running the policy over a batch gives the numbers of when it acted."""
    length = UNROLL // sequences
    agent = IMPALA(tiny(core), procgen(), seed=3, rollout_steps=UNROLL, unroll_steps=length, batch_unrolls=3)
    compared: list[int] = []
    ends = 0

    def learn(batch: Batch, step: int) -> dict[str, float]:
        nonlocal ends
        ends += int(batch.dones[:-1].sum())
        for part in agent.learner.batches(batch):
            assert part.actions.shape == (length, 3)
            with torch.no_grad():
                output = agent.policy(part.rgb, part.reward_input, part.initial_state, part.episode_start)
            log_probs = output.logits[:-1].log_softmax(-1).gather(-1, part.actions.unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(log_probs, part.log_probs)
            torch.testing.assert_close(output.value[:-1], part.values)
            compared.append(part.actions.numel())
        return {}

    agent.learner.learn = learn  # type: ignore[method-assign]
    agent.learn(12 * ROLLOUT)
    assert sum(compared) == 12 * ROLLOUT
    assert ends > 0


def test_without_lag_the_weights_that_learn_are_those_that_acted(tiny: Tiny, procgen: MakeEnv) -> None:
    agent = IMPALA(tiny("lstm"), procgen(), seed=3, rollout_steps=UNROLL, batch_unrolls=NUM_ENVS)
    rows = log_rows(agent)
    agent.learn(3 * ROLLOUT)
    # All importance weights are 1, up to rounding.
    agent.learner.config = replace(agent.config, rho_clip=1.0001)
    agent.learn(3 * ROLLOUT)
    assert [row["train/rho_clipped"] for row in rows[3:]] == [0.0, 0.0, 0.0]


# The course of training


def test_the_learning_rate_falls_linearly_and_never_to_zero(
    tiny: Tiny, toy: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, rollout_steps=5, learning_rate=0.01)
    rates: list[float] = []
    moved: list[bool] = []
    learn = agent.learner.learn

    def watch(batch: Batch, step: int) -> dict[str, float] | None:
        before = weights(agent)
        metrics = learn(batch, step)
        rates.append(agent.optimizer.param_groups[0]["lr"])
        moved.append(any(not torch.equal(before[name], tensor) for name, tensor in weights(agent).items()))
        return metrics

    monkeypatch.setattr(agent.learner, "learn", watch)
    rows = log_rows(agent)
    agent.learn(5 * 20)
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])
    assert [row["train/learning_rate"] for row in rows] == rates
    assert moved == [True] * 5
    assert [row["time/total_timesteps"] for row in rows] == [20, 40, 60, 80, 100]


def test_the_learning_rate_can_stay(tiny: Tiny, toy: MakeEnv) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, rollout_steps=5, learning_rate=0.01, learning_rate_decay=False)
    rows = log_rows(agent)
    agent.learn(60)
    assert [row["train/learning_rate"] for row in rows] == [0.01] * 3


def test_steps_are_rounded_up_to_whole_rollouts(tiny: Tiny, toy: MakeEnv) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, rollout_steps=5)
    rows = log_rows(agent)
    agent.learn(41)
    assert agent.num_timesteps == 60
    assert all(row["train/learning_rate"] > 0.0 for row in rows)


@pytest.mark.parametrize("lag", [0, 1])
def test_nothing_to_do_is_done(tiny: Tiny, toy: MakeEnv, lag: int) -> None:
    agent = IMPALA(tiny(), toy(4), seed=0, rollout_steps=5, rollout_lag=lag)
    before = weights(agent)
    agent.learn(0)
    assert agent.num_timesteps == 0
    assert_same_weights(weights(agent), before)
    agent.learn(20)
    before = weights(agent)
    agent.learn(0, reset_num_timesteps=False)
    assert agent.num_timesteps == 20
    assert_same_weights(weights(agent), before)


def test_it_learns_which_action_pays(tiny: Tiny, toy: MakeEnv) -> None:
    agent = IMPALA(tiny("lstm"), toy(), seed=0, rollout_steps=8, learning_rate=3e-3, discount=0.5)
    agent.learn(10_000)
    # Episodes last 6.5 steps on average, so random play earns 2.2 and the best 6.5.
    assert agent.episode_returns["env"] > 5.5


def train(
    tiny: Tiny, env: Any, rollouts: int = 4, seed: int | None = 0, core: str = "srwm", **settings: Any
) -> tuple[IMPALA, list[dict[str, Any]]]:
    agent = IMPALA(tiny(core), env, seed=seed, rollout_steps=UNROLL, **settings)
    rows = log_rows(agent)
    agent.learn(rollouts * ROLLOUT)
    return agent, rows


@pytest.mark.parametrize("lag", [0, 1])
def test_a_seed_decides_everything(tiny: Tiny, procgen: MakeEnv, lag: int) -> None:
    one, one_rows = train(tiny, procgen(seed=1), seed=5, batch_unrolls=2, rollout_lag=lag)
    torch.manual_seed(99)  # the world goes on
    same, same_rows = train(tiny, procgen(seed=2), seed=5, batch_unrolls=2, rollout_lag=lag)
    assert_same_weights(weights(one), weights(same))
    assert_same(one_rows, same_rows)
    other, _ = train(tiny, procgen(seed=1), seed=6, batch_unrolls=2, rollout_lag=lag)
    assert not torch.equal(one.policy.actor.weight, other.policy.actor.weight)


@pytest.mark.parametrize("algorithm", [IMPALA, PPO])
def test_what_others_draw_changes_nothing(algorithm: type[Agent], tiny: Tiny, procgen: MakeEnv) -> None:
    runs = []
    for others in (False, True):
        agent = algorithm(tiny("lstm"), procgen(), seed=0, **resumable(algorithm))

        def draw(*_: Any, others: bool = others) -> bool:
            return not others or bool(torch.rand(1) + np.random.default_rng().random() + 1)

        agent.learn(3 * ROLLOUT, callback=draw)
        runs.append(weights(agent))
    assert_same_weights(*runs)


def test_other_seeds_act_otherwise(tiny: Tiny, procgen: MakeEnv) -> None:
    actions = []
    for seed in (0, 1):
        agent = IMPALA(tiny(), procgen(), seed=seed, rollout_steps=UNROLL)
        torch.nn.init.zeros_(agent.policy.actor.weight)
        torch.nn.init.zeros_(agent.policy.actor.bias)
        learn = agent.learner.learn
        agent.learner.learn = lambda batch, step, learn=learn: (  # type: ignore[method-assign]
            actions.append(batch.actions.clone()) or learn(batch, step)
        )
        agent.learn(ROLLOUT)
    assert not torch.equal(*actions)
    assert len(actions[0].unique()) > 10


def test_without_a_seed_no_two_runs_are_alike(tiny: Tiny, toy: MakeEnv) -> None:
    torch.manual_seed(0)
    runs = [IMPALA(tiny(), toy(4), rollout_steps=5) for _ in range(2)]
    observation = {"rgb": np.zeros((64, 8, 8, 3), np.uint8), "reward": np.zeros((64, 1), np.float32)}
    assert not torch.equal(runs[0].policy.actor.weight, runs[1].policy.actor.weight)
    runs[1].policy.load_state_dict(runs[0].policy.state_dict())
    one, other = (run.predict(observation)[0] for run in runs)
    assert not np.array_equal(one, other)


def test_starting_anew_forgets_the_episodes_before(tiny: Tiny, procgen: MakeEnv) -> None:
    agent, _ = train(tiny, procgen(), rollouts=2, reward_transform="normalize")
    seen: list[Any] = []

    class Look(BaseCallback):
        def _on_rollout_start(self) -> None:
            seen.append(
                (agent.actors.collector.core_state, agent.actors.collector.transform.state(), agent.stream)
            )

        def _on_step(self) -> bool:
            return True

    agent.learn(ROLLOUT, callback=Look())
    state, transform, stream = seen[0]
    assert all(tensor.count_nonzero() == 0 for tensor in state.values())
    assert not transform["returns"].any()
    assert transform["statistics"]["bigfish"]["count"] > 2 * UNROLL  # not those, they are still true
    assert stream.episode_start.all()
    assert agent.num_timesteps == ROLLOUT


def test_it_goes_on_where_it_was(tiny: Tiny, procgen: MakeEnv) -> None:
    """Two calls of learn are one long one."""
    long, _ = train(tiny, procgen(), rollouts=4, learning_rate_decay=False)
    short, _ = train(tiny, procgen(), rollouts=2, learning_rate_decay=False)
    short.learn(2 * ROLLOUT, reset_num_timesteps=False)
    assert short.num_timesteps == 4 * ROLLOUT
    assert_same_weights(weights(short), weights(long))


def test_a_callback_that_returns_false_stops_it_at_once(tiny: Tiny, procgen: MakeEnv) -> None:
    agent = IMPALA(tiny(), procgen(), seed=0, rollout_steps=UNROLL)
    agent.learn(10 * ROLLOUT, callback=OnStep(UNROLL + 3, stop=True))
    assert agent.num_timesteps == (UNROLL + 3) * NUM_ENVS
    assert agent.learner.updates == 1


# Exact continuation


def resumable(algorithm: type[Agent]) -> dict[str, Any]:
    if algorithm is IMPALA:
        return {"rollout_steps": UNROLL, "batch_unrolls": 3}
    return {"rollout_steps": UNROLL, "minibatches": 2, "epochs": 2}


CASES = [
    *((IMPALA, core, "clip") for core in CORES),
    (IMPALA, "srwm", "normalize"),
    (PPO, "feedforward", "normalize"),
    (PPO, "srwm", "normalize"),
]


@pytest.mark.parametrize(("algorithm", "core", "transform"), CASES)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(
    algorithm: type[Agent], core: str, transform: str, tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    """Saved at 5 of 10 rollouts and in the middle of the 6th; loaded into other environments, continued."""
    half, total = 5 * ROLLOUT, 10 * ROLLOUT
    settings = {**resumable(algorithm), "reward_transform": transform, "learning_rate_decay": True}
    whole = algorithm(tiny(core), procgen(), seed=4, **settings)
    whole_rows = log_rows(whole)

    class Save(BaseCallback):
        def _on_rollout_start(self) -> None:
            if self.model.num_timesteps == half:
                self.model.save(tmp_path / "between")

        def _on_step(self) -> bool:
            if self.model.num_timesteps == half + 5 * NUM_ENVS:
                self.model.predict(self.model._last_obs)
                self.model.save(tmp_path / "within")
            return True

    whole.learn(total, callback=Save())
    whole.save(tmp_path / "whole")
    between, within = (read_checkpoint(tmp_path / name) for name in ("between", "within"))
    assert_same(within, between)
    assert between["run"]["num_timesteps"] == half

    # Nothing but the checkpoint decides how it goes on: neither the seed nor the past of what it is loaded into.
    env = procgen(seed=77)
    env.reset()
    env.step(np.zeros(NUM_ENVS, int))
    torch.manual_seed(1234)
    resumed = algorithm.load(tmp_path / "within", env, force_reset=False)
    assert resumed.num_timesteps == half
    rows = log_rows(resumed)
    resumed.learn(total - half, reset_num_timesteps=False)
    resumed.save(tmp_path / "resumed")

    assert_same(rows, whole_rows[5:])
    assert rows[0]["rollout/ep_len_mean"] != rows[-1]["rollout/ep_len_mean"]  # episodes ended meanwhile
    assert_same_weights(weights(resumed), weights(whole))
    ends = [read_checkpoint(tmp_path / name) for name in ("resumed", "whole")]
    for end in ends:
        del end["run"]["random"]["predicting"]  # only one of them was asked to predict
    assert_same(*ends)


def test_n_steps_a_checkpoint_and_n_steps_are_2n_steps(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    whole, _ = train(tiny, procgen(), rollouts=6, learning_rate_decay=False)
    half, _ = train(tiny, procgen(), rollouts=3, learning_rate_decay=False)
    half.save(tmp_path / "half")
    resumed = IMPALA.load(tmp_path / "half", procgen(seed=3), force_reset=False)
    resumed.learn(3 * ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(weights(resumed), weights(whole))
    assert_same(resumed.optimizer.state_dict(), whole.optimizer.state_dict())
    assert resumed.episode_returns == whole.episode_returns


def test_a_run_that_was_stopped_within_a_rollout_goes_on_from_its_start(
    tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    whole, _ = train(tiny, procgen(), rollouts=4)
    stopped = IMPALA(tiny("srwm"), procgen(), seed=0, rollout_steps=UNROLL)
    stopped.learn(4 * ROLLOUT, callback=OnStep(2 * UNROLL + 5, stop=True))
    stopped.save(tmp_path / "stopped")
    resumed = IMPALA.load(tmp_path / "stopped", procgen(), force_reset=False)
    assert resumed.num_timesteps == 2 * ROLLOUT
    resumed.learn(2 * ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(weights(resumed), weights(whole))


IN_A_FRESH_PROCESS = """
import sys
import agents
from envs import ProcgenVecEnv

source, target, steps, games = sys.argv[1:]
agent = agents.load(source, ProcgenVecEnv(games, 6, seed=8, num_threads=2), force_reset=False)
agent.learn(int(steps), reset_num_timesteps=False)
agent.save(target)
"""


def test_a_fresh_process_continues_exactly(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    env = procgen()
    agent = IMPALA(tiny("srwm"), env, seed=0, rollout_steps=UNROLL, reward_transform="normalize")
    agent.learn(6 * ROLLOUT, callback=OnStep(3 * UNROLL + 2, lambda agent: agent.save(tmp_path / "half")))
    agent.save(tmp_path / "whole")
    arguments = [str(tmp_path / "half"), str(tmp_path / "resumed"), str(3 * ROLLOUT), ",".join(env.games)]
    subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *arguments],
        check=True,
        cwd=Path(agents.__file__).parents[1],
        timeout=100,
    )
    assert_same(read_checkpoint(tmp_path / "resumed"), read_checkpoint(tmp_path / "whole"))


def test_saving_changes_nothing(tiny: Tiny, procgen: MakeEnv, tmp_path: Path) -> None:
    plain, _ = train(tiny, procgen())
    saving = IMPALA(tiny("srwm"), procgen(), seed=0, rollout_steps=UNROLL)
    saving.learn(4 * ROLLOUT, callback=lambda *_: bool(saving.save(tmp_path / "any") or True))
    assert_same_weights(weights(plain), weights(saving))


# Lag


def test_lagging_rollouts_are_made_with_the_weights_of_one_update_ago(
    tiny: Tiny, procgen: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = IMPALA(
        tiny("srwm"), procgen(), seed=0, rollout_steps=UNROLL, rollout_lag=1, batch_unrolls=NUM_ENVS
    )
    history: list[dict[str, torch.Tensor]] = []
    learn, collect = agent.learner.learn, agent.actors.collector.collect
    updated = threading.Semaphore(1)

    def collect_late(*arguments: Any) -> Any:
        assert updated.acquire(timeout=60)  # an update that ran meanwhile must not be seen
        return collect(*arguments)

    def log_probs(batch: Batch, state_dict: dict[str, torch.Tensor]) -> torch.Tensor:
        policy = deepcopy(agent.policy)
        policy.load_state_dict(state_dict)
        with torch.no_grad():
            output = policy(batch.rgb, batch.reward_input, batch.initial_state, batch.episode_start)
        return output.logits[:-1].log_softmax(-1).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)

    def watch(batch: Batch, step: int) -> dict[str, float] | None:
        history.append(weights(agent))
        number = len(history) - 1
        for age, state_dict in enumerate(reversed(history)):
            same = torch.allclose(log_probs(batch, state_dict), batch.log_probs, rtol=0.0, atol=1e-5)
            assert same == (age == min(1, number)), f"rollout {number}, weights of {age} updates ago"
        metrics = learn(batch, step)
        updated.release()
        return metrics

    monkeypatch.setattr(agent.learner, "learn", watch)
    monkeypatch.setattr(agent.actors.collector, "collect", collect_late)
    agent.learn(6 * ROLLOUT)
    assert len(history) == 6


def test_lagging_rollouts_are_no_more_and_no_fewer(tiny: Tiny, procgen: MakeEnv) -> None:
    agent, rows = train(tiny, procgen(), rollouts=5, rollout_lag=1)
    assert agent.num_timesteps == 5 * ROLLOUT
    assert [row["time/total_timesteps"] for row in rows] == [ROLLOUT * n for n in range(1, 6)]
    rates = [row["train/learning_rate"] for row in rows]
    assert rates == pytest.approx([6e-4 * share for share in (1.0, 0.8, 0.6, 0.4, 0.2)])
    assert agent.learner.updates == 5


def test_lagging_training_stops_where_a_callback_says_so(tiny: Tiny, procgen: MakeEnv) -> None:
    agent = IMPALA(tiny(), procgen(), seed=0, rollout_steps=UNROLL, rollout_lag=1)
    agent.learn(10 * ROLLOUT, callback=OnStep(UNROLL + 3, stop=True))
    assert agent.num_timesteps == (UNROLL + 3) * NUM_ENVS
    assert agent.learner.updates == 1


@pytest.mark.parametrize("reset", ["episode", "never"])
def test_lagging_training_goes_on_exactly_as_if_it_had_not_been_interrupted(
    reset: str, tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    """Saved between two rollouts, within one, and at an end: the rollout that was under way is played again."""
    settings: dict[str, Any] = {"seed": 0, "rollout_steps": UNROLL, "batch_unrolls": 3, "rollout_lag": 1}
    policy = tiny("srwm", reset=reset)
    whole = IMPALA(policy, procgen(), reward_transform="normalize", **settings)
    rows = log_rows(whole)

    def save(name: str) -> Callable[[Any], None]:
        return lambda agent: agent.save(tmp_path / name)

    whole.learn(
        6 * ROLLOUT,
        CallbackList([OnStep(3 * UNROLL, save("between")), OnStep(3 * UNROLL + 5, save("within"))]),
    )
    for name, rollouts in (("between", 2), ("within", 3)):
        resumed = IMPALA.load(tmp_path / name, procgen(seed=3), force_reset=False)
        assert resumed.num_timesteps == rollouts * ROLLOUT
        again = log_rows(resumed)
        resumed.learn((6 - rollouts) * ROLLOUT, reset_num_timesteps=False)
        assert_same_weights(weights(resumed), weights(whole))
        assert_same(again, rows[rollouts:])
    half = IMPALA(policy, procgen(), reward_transform="normalize", learning_rate_decay=False, **settings)
    half.learn(3 * ROLLOUT)
    half.save(tmp_path / "half")
    half.learn(3 * ROLLOUT, reset_num_timesteps=False)
    resumed = IMPALA.load(tmp_path / "half", procgen(seed=3), force_reset=False)
    resumed.learn(3 * ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(weights(resumed), weights(half))


def test_lagging_training_that_was_stopped_while_it_learned_goes_on_exactly(
    tiny: Tiny, procgen: MakeEnv, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"seed": 0, "rollout_steps": UNROLL, "batch_unrolls": 2, "rollout_lag": 1}
    whole = IMPALA(tiny("srwm"), procgen(), **settings)
    whole.learn(5 * ROLLOUT)
    stopped = IMPALA(tiny("srwm"), procgen(), **settings)
    losses = stopped.learner.losses

    def stop_at_the_fifth(batch: Batch) -> Losses:
        if stopped.learner.updates == 3 * 2 + 1:  # in the middle of the third rollout's
            stopped.stop_when = lambda: True
        return losses(batch)

    stopped.learner.losses = stop_at_the_fifth  # type: ignore[method-assign]
    stopped.learn(5 * ROLLOUT)
    assert stopped.checkpoint_step == 2 * ROLLOUT
    assert stopped.learner.updates == 3 * 2
    stopped.save(tmp_path / "stopped")
    resumed = IMPALA.load(tmp_path / "stopped", procgen(), force_reset=False)
    resumed.learn(3 * ROLLOUT, reset_num_timesteps=False)
    assert_same_weights(weights(resumed), weights(whole))


def test_an_error_in_the_acting_thread_comes_out(
    tiny: Tiny, procgen: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = procgen()
    agent = IMPALA(tiny(), env, seed=0, rollout_steps=UNROLL, rollout_lag=1)
    step_wait, calls = env.step_wait, []

    def fail() -> Any:
        calls.append(1)
        if len(calls) > UNROLL + 2:
            raise RuntimeError("the game broke")
        return step_wait()

    monkeypatch.setattr(env, "step_wait", fail)
    with pytest.raises(RuntimeError, match="the game broke"):
        agent.learn(5 * ROLLOUT)
