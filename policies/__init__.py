"""Networks: image encoder, recurrent cores that may rewrite their own weights, heads."""

from policies.cores.base import Kind, Reading
from policies.encoders.impala import ImpalaEncoderConfig
from policies.policy import Policy, PolicyConfig, PolicyOutput, core_config, from_json, policy_config
from policies.registry import CORES, ENCODERS, name_of
from policies.resets import State
from policies.step_factors import scale_steps
from policies.tasks import PER_TASK, TASK, TaskConfig

__all__ = [
    "CORES",
    "ENCODERS",
    "PER_TASK",
    "TASK",
    "ImpalaEncoderConfig",
    "Kind",
    "Policy",
    "PolicyConfig",
    "PolicyOutput",
    "Reading",
    "State",
    "TaskConfig",
    "core_config",
    "from_json",
    "name_of",
    "policy_config",
    "scale_steps",
]
