from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from policies import CORES, ENCODERS, Policy, TaskConfig, policy_config
from policies.cores.layered import LayeredCore

SHAPE, ACTIONS = (64, 64, 3), 15


def policy(core: str = "srwm_sharp", seed: int = 0, **overrides: object) -> Policy:
    torch.manual_seed(seed)
    settings = {"encoder": "nature", "precision": "float32", "initial_weights": "small-heads", **overrides}
    return Policy(policy_config(core, **settings), SHAPE, ACTIONS)


def frames(steps: int = 4, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randint(256, (steps, batch, *SHAPE), generator=generator, dtype=torch.uint8)
    start = torch.zeros(steps, batch, dtype=torch.bool)
    return rgb, torch.zeros(steps, batch, 1), start


@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_an_encoder_begins_with_glorots_uniform_weights_and_without_biases(encoder: str) -> None:
    made = policy(encoder=encoder).encoder
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        fans = nn.init._calculate_fan_in_and_fan_out(parameter)
        bound = math.sqrt(6.0 / sum(fans))
        assert parameter.abs().max() <= bound, name
        assert parameter.abs().max() > 0.9 * bound, name
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3.0), rel=0.1), name


@pytest.mark.parametrize("heads", ["shared", "per-task", "blocks"])
def test_heads_begin_orthogonal_and_without_biases(heads: str) -> None:
    tasks = TaskConfig(2, "told" if heads == "per-task" else "hidden", heads)
    made = policy(tasks=tasks)
    made.renew(3)  # draws them anew, in the same way
    for head in (made.actor, made.critic):
        for name, parameter in head.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
                continue
            for matrix in parameter.reshape(-1, *parameter.shape[-2:]):
                identity = torch.eye(len(matrix))
                torch.testing.assert_close(matrix @ matrix.t() / 0.1**2, identity, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("core", list(CORES))
def test_all_actions_begin_about_as_likely(core: str) -> None:
    made = policy(core)
    rgb, reward, start = frames()
    logits = made(rgb, reward, made.initial_state(3), start).logits
    assert (logits.softmax(-1) - 1 / ACTIONS).abs().max() < 0.03


def test_one_step_of_adam_hardly_changes_how_likely_actions_are() -> None:
    """With torch's defaults it changes them by more than a clipped ratio of 1.2 allows."""
    changes = {}
    for name in ("torch", "small-heads"):
        made = policy(initial_weights=name)
        rgb, reward, start = frames()
        optimizer = torch.optim.Adam(made.parameters(), 5e-4, eps=1e-5)
        before = made(rgb, reward, made.initial_state(3), start).logits.log_softmax(-1)
        before[..., 0].mean().backward()
        optimizer.step()
        after = made(rgb, reward, made.initial_state(3), start).logits.log_softmax(-1)
        changes[name] = (after - before).exp().sub(1.0).abs().mean().item()
    assert changes["small-heads"] < 0.1 < 0.2 < changes["torch"], changes


@pytest.mark.parametrize("core", [name for name in CORES if name not in ("feedforward", "lstm")])
@pytest.mark.parametrize("cores", ["shared", "per-task"])
def test_a_core_of_quiet_layers_begins_as_an_orthogonal_map(core: str, cores: str) -> None:
    tasks = TaskConfig(2, "told" if cores == "per-task" else "hidden", cores=cores)
    made = policy(core, initial_weights="quiet-layers", tasks=tasks)
    made.renew(3)  # draws them anew, in the same way
    rgb, reward, start = frames()
    features = made.features(rgb, reward)
    output = made(rgb, reward, made.initial_state(3), start)
    inner = made.core.cores[0] if cores == "per-task" else made.core
    assert isinstance(inner, LayeredCore)
    weight = inner.input_linear.weight
    torch.testing.assert_close(weight @ weight.t(), torch.eye(len(weight)), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(output.hidden, features @ weight.t(), atol=1e-5, rtol=1e-4)
    # The layers learn what to add from the first step on.
    output.logits.square().sum().backward()
    for layer in inner.layers:
        assert layer.out_linear.weight.grad is not None
        assert layer.out_linear.weight.grad.any()


@pytest.mark.parametrize("core", list(CORES))
@pytest.mark.parametrize("bypass", [False, True])
def test_after_the_first_step_every_parameter_is_learned(core: str, bypass: bool) -> None:
    made = policy(core, initial_weights="quiet-layers", bypass=bypass)
    optimizer = torch.optim.Adam(made.parameters(), 1e-3)
    rgb, reward, start = frames()
    for _ in range(3):
        optimizer.zero_grad()
        output = made(rgb, reward, made.initial_state(3), start)
        (output.logits.square().sum() + (output.value - 1.0).square().sum()).backward()
        optimizer.step()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_a_core_without_such_layers_has_nothing_to_quieten() -> None:
    quiet, loud = (policy("lstm", initial_weights=name) for name in ("quiet-layers", "small-heads"))
    for one, other in zip(quiet.parameters(), loud.parameters(), strict=True):
        assert torch.equal(one, other)


def test_torch_leaves_the_weights_that_layers_have_drawn() -> None:
    made = policy(initial_weights="torch")
    for name, parameter in made.actor.named_parameters():  # torch draws biases, too
        bound = 1 / math.sqrt(made.core.output_size)
        assert bound / 2 < parameter.abs().max().item() <= bound, name
