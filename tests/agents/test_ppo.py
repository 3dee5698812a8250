"""PPO: one update against Stable-Baselines3's, and what is particular to recurrent policies."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents import PPO, PPOConfig
from agents.rollout import Batch, Sequences
from common.errors import UserError
from policies import Policy, PolicyConfig

NUM_ENVS, STEPS = 6, 40

Tiny = Callable[..., PolicyConfig]
MakeEnv = Callable[..., Any]


def collected(agent: PPO) -> Batch:
    """The next rollout of the agent's environments, which the one after it does not overwrite."""
    found: list[Batch] = []
    learn = agent.learner.learn
    agent.learner.learn = lambda batch, step: found.append(deepcopy(batch))  # type: ignore[func-returns-value,method-assign]
    agent.learn(agent.n_envs * agent.config.rollout_steps, reset_num_timesteps=False)
    agent.learner.learn = learn  # type: ignore[method-assign]
    return found[0]


def short(env: Any, policy: PolicyConfig, **overrides: Any) -> PPO:
    settings = {"rollout_steps": STEPS, "minibatches": 3, "epochs": 2, **overrides}
    return PPO(policy, env, seed=3, device="cpu", **settings)


class OurFeatures(BaseFeaturesExtractor):
    """Our encoder and reward input as a features extractor; Stable-Baselines3 gives it images channel-first."""

    def __init__(self, observation_space: spaces.Dict, policy: Policy) -> None:
        super().__init__(observation_space, policy.encoder.output_size + 1)
        self.encoder = policy.encoder

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        images = observations["rgb"].to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return torch.cat([self.encoder(images), observations["reward"]], dim=-1)


def test_one_update_is_that_of_stable_baselines3(procgen: MakeEnv, tiny: Tiny) -> None:
    ours = short(
        procgen(num_envs=NUM_ENVS, seed=1),
        tiny("feedforward"),
        value_clip_range=None,
        value_cost=1.0,  # of half the squared error: theirs is 0.5 of the whole
        entropy_cost=0.03,
        reward_transform="none",
    )
    batch = collected(ours)
    # As if older weights had acted, by enough to cross the clip range on both sides.
    generator = torch.Generator().manual_seed(0)
    batch = replace(
        batch,
        log_probs=batch.log_probs + 0.4 * torch.randn(STEPS, NUM_ENVS, generator=generator),
        values=batch.values + torch.randn(STEPS, NUM_ENVS, generator=generator),
    )
    assert batch.dones.any()
    last = ours.policy(batch.rgb[-1:], batch.reward_input[-1:], {}, batch.episode_start[-1:])

    theirs = stable_baselines3.PPO(
        "MultiInputPolicy",
        procgen(num_envs=NUM_ENVS, seed=1),
        n_steps=STEPS,
        batch_size=STEPS * NUM_ENVS,
        n_epochs=1,
        gamma=ours.config.discount,
        gae_lambda=ours.config.gae_lambda,
        clip_range=ours.config.clip_range,
        ent_coef=0.03,
        vf_coef=0.5,
        max_grad_norm=1e9,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": OurFeatures,
            "features_extractor_kwargs": {"policy": ours.policy},
            "net_arch": [],
            "ortho_init": False,
            "normalize_images": False,
        },
    )
    network: Any = theirs.policy
    network.action_net.load_state_dict(ours.policy.actor.state_dict())
    network.value_net.load_state_dict(ours.policy.critic.state_dict())
    # The encoder is copied too, so that each side has gradients of its own.
    network.features_extractor.encoder = Policy(ours.policy_config, (64, 64, 3), 15).encoder
    network.features_extractor.encoder.load_state_dict(ours.policy.encoder.state_dict())
    buffer = theirs.rollout_buffer
    buffer.reset()
    for t in range(STEPS):
        buffer.add(
            {
                "rgb": batch.rgb[t].permute(0, 3, 1, 2).numpy(),
                "reward": batch.reward_input[t].numpy(),
            },  # type: ignore[arg-type]  # a DictRolloutBuffer
            batch.actions[t].numpy()[:, None],
            batch.rewards[t].numpy(),
            batch.episode_start[t].numpy(),
            batch.values[t],
            batch.log_probs[t],
        )
    buffer.compute_returns_and_advantage(last.value[0].detach(), batch.dones[-1].numpy())
    theirs.set_logger(Logger(None, []))
    network.optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    theirs.train()

    sequences = ours.learner.estimate(batch)
    advantages = buffer.advantages.reshape(NUM_ENVS, STEPS).T
    np.testing.assert_allclose(sequences.advantages.numpy(), advantages, atol=1e-5)
    losses = ours.learner.losses(sequences.one_step_each())
    losses.total.backward()
    terms = {"loss": losses.total, **losses.metrics}
    logged = theirs.logger.name_to_value
    assert 0.1 < logged["train/clip_fraction"] < 0.9
    for ours_name, theirs_value in {
        "policy_loss": logged["train/policy_gradient_loss"],
        "value_loss": 0.5 * logged["train/value_loss"],
        "entropy": -logged["train/entropy_loss"],
        "loss": logged["train/loss"],
        "approx_kl": logged["train/approx_kl"],
        "clip_fraction": logged["train/clip_fraction"],
    }.items():
        assert terms[ours_name].item() == pytest.approx(theirs_value, rel=1e-5), ours_name
    pairs = [
        (ours.policy.encoder, network.features_extractor.encoder),
        (ours.policy.actor, network.action_net),
        (ours.policy.critic, network.value_net),
    ]
    for our_part, their_part in pairs:
        for (name, parameter), other in zip(
            our_part.named_parameters(), their_part.parameters(), strict=True
        ):
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_learning_sees_what_acting_saw(procgen: MakeEnv, tiny: Tiny, core: str) -> None:
    """Recomputed from the state at the rollout's start, with resets, all probability ratios are 1."""
    agent = short(procgen(num_envs=NUM_ENVS), tiny(core))
    collected(agent)
    batch = collected(agent)  # from a state that is not fresh
    assert batch.dones.any()
    sequences = agent.learner.estimate(batch)
    if not agent.policy.is_recurrent:
        sequences = sequences.one_step_each()
    with torch.no_grad():
        terms = agent.learner.losses(sequences).metrics
    assert terms["approx_kl"].item() == pytest.approx(0.0, abs=1e-8)
    assert terms["clip_fraction"].item() == 0.0


def test_bootstrap_value_is_that_of_the_last_observation(procgen: MakeEnv, tiny: Tiny) -> None:
    agent = short(procgen(num_envs=NUM_ENVS), tiny("srwm"), gae_lambda=1.0, reward_transform="none")
    batch = collected(agent)
    sequences = agent.learner.estimate(batch)
    expected = collected(agent).values[0]
    for t in reversed(range(STEPS)):
        going_on = (~batch.dones[t]).float()
        expected = batch.rewards[t] + agent.config.discount * going_on * expected
    torch.testing.assert_close(sequences.returns[0], expected, rtol=1e-4, atol=1e-5)


def _numbered(steps: int, slots: int) -> Sequences:
    numbers = torch.arange(steps * slots).reshape(steps, slots)
    floats = numbers.float()
    return Sequences(
        rgb=torch.zeros(steps, slots, 1, 1, 3, dtype=torch.uint8),
        reward_input=floats.unsqueeze(-1),
        episode_start=torch.zeros(steps, slots, dtype=torch.bool),
        actions=numbers,
        log_probs=floats,
        values=floats,
        advantages=floats,
        returns=floats,
        initial_state={"slot": torch.arange(slots)},
    )


def minibatches(agent: PPO, sequences: Sequences) -> list[Sequences]:
    """How the learner cuts what it has estimated."""
    agent.learner.estimate = lambda rollout: sequences  # type: ignore[attr-defined]
    return list(agent.learner.batches(SimpleNamespace(states={})))


def assert_each_step_once(parts: list[Sequences]) -> None:
    steps = torch.cat([part.actions.flatten() for part in parts])
    assert sorted(steps.tolist()) == list(range(STEPS * NUM_ENVS))


def test_recurrent_minibatches_are_whole_environments(procgen: MakeEnv, tiny: Tiny) -> None:
    agent = short(procgen(num_envs=NUM_ENVS), tiny("lstm"))
    parts = minibatches(agent, _numbered(STEPS, NUM_ENVS))
    assert len(parts) == 2 * 3
    for epoch in (parts[:3], parts[3:]):
        assert sorted(torch.cat([part.actions.flatten() for part in epoch]).tolist()) == list(
            range(STEPS * NUM_ENVS)
        )
    for part in parts:
        assert part.actions.shape == (STEPS, NUM_ENVS // 3)
        # Each column is one environment from beginning to end, with its own state.
        assert torch.equal(
            part.actions, part.initial_state["slot"] + NUM_ENVS * torch.arange(STEPS).unsqueeze(1)
        )
        assert torch.equal(part.reward_input.squeeze(-1), part.actions.float())
    assert not torch.equal(parts[0].actions, parts[3].actions)


def test_minibatches_without_memory_mix_all_steps(procgen: MakeEnv, tiny: Tiny) -> None:
    agent = short(procgen(num_envs=NUM_ENVS), tiny("fake_srwm"))
    parts = minibatches(agent, replace(_numbered(STEPS, NUM_ENVS), initial_state={}))
    for epoch in (parts[:3], parts[3:]):
        assert sorted(torch.cat([part.actions.flatten() for part in epoch]).tolist()) == list(
            range(STEPS * NUM_ENVS)
        )
    for part in parts:
        assert part.actions.shape == (1, STEPS * NUM_ENVS // 3)
        assert len({number % NUM_ENVS for number in part.actions.flatten().tolist()}) > NUM_ENVS // 3
        assert torch.equal(part.values, part.actions.float())


def test_sequences_begin_with_the_states_that_acted(procgen: MakeEnv, tiny: Tiny, core: str) -> None:
    """Without a change of the weights, what is learned from is what the policy said when it acted, in any cut."""
    agent = short(procgen(num_envs=NUM_ENVS), tiny(core), unroll_steps=STEPS // 2, epochs=1)
    found: list[tuple[Tensor, Tensor]] = []

    def learn(rollout: Batch, step: int) -> dict[str, float]:
        whole = agent.learner.estimate(rollout)  # type: ignore[attr-defined]
        parts = list(agent.learner.batches(rollout))
        for name in (
            "advantages",
            "returns",
            "log_probs",
        ):  # no step is lost, and estimates are those of the whole
            cut = torch.cat([getattr(part, name).flatten() for part in parts])
            assert torch.equal(cut.sort().values, getattr(whole, name).flatten().sort().values)
        for part in parts:
            if agent.policy.is_recurrent:
                assert part.actions.shape == (STEPS // 2, 2 * NUM_ENVS // 3)
            with torch.no_grad():
                output = agent.policy(part.rgb, part.reward_input, part.initial_state, part.episode_start)
            found.append((output.value, part.values))
        return {}

    agent.learner.learn = learn  # type: ignore[method-assign]
    agent.learn(4 * NUM_ENVS * STEPS)
    assert len(found) == 12
    for said, acted in found:
        torch.testing.assert_close(said, acted)


def test_steps_of_a_policy_with_memory_stay_in_their_sequence() -> None:
    with pytest.raises(ValueError, match="cannot be taken out of their sequence"):
        _numbered(STEPS, NUM_ENVS).one_step_each()


def test_every_parameter_moves(procgen: MakeEnv, tiny: Tiny, core: str) -> None:
    agent = short(procgen(num_envs=NUM_ENVS), tiny(core))
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    agent.learn(NUM_ENVS * STEPS)
    for name, tensor in agent.policy.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_learns_which_action_pays(toy: MakeEnv, tiny: Tiny) -> None:
    agent = PPO(
        tiny("feedforward"),
        toy(),
        seed=0,
        device="cpu",
        rollout_steps=32,
        minibatches=4,
        learning_rate=5e-3,
        discount=0.9,
    )
    agent.learn(6_000)
    # Episodes last 5 to 8 steps, 6.5 on average: random play earns 2.2, the best 6.5.
    assert agent.episode_returns["env"] > 5.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"minibatches": 4}, "minibatches must divide the number of environments, but 4 does not divide 6"),
        (
            {"unroll_steps": 32, "minibatches": 5},
            "the number of unrolls in a rollout, but 5 does not divide 48",
        ),
        (
            {"rollout_steps": 53, "unroll_steps": 7},
            "a rollout of 53 steps cannot be cut into equal unrolls of about 7",
        ),
        ({"epochs": 0}, "epochs is 0: give 1 or more"),
        ({"clip_range": 0.0}, "clip_range is 0.0: give more than 0"),
        ({"value_clip_range": -1.0}, "value_clip_range is -1.0: give more than 0, or none"),
        ({"gae_lambda": 1.5}, "gae_lambda is 1.5: give at most 1"),
    ],
)
def test_impossible_settings(overrides: dict[str, Any], words: str) -> None:
    (problem,) = replace(PPOConfig(minibatches=2), **overrides).problems(NUM_ENVS)
    assert words in problem


def test_all_problems_are_named_at_once(procgen: MakeEnv, tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"reward transform.*epochs"):
        short(procgen(num_envs=NUM_ENVS), tiny(), minibatches=0, epochs=0, reward_transform="clipp")
