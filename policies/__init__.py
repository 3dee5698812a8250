"""Networks: image encoder, recurrent cores that may rewrite their own weights, heads."""

from policies.cores.base import Kind, Reading
from policies.encoder import EncoderConfig
from policies.policy import Policy, PolicyConfig, PolicyOutput, core_config, from_json, policy_config
from policies.registry import CORES, name_of
from policies.resets import State
from policies.tasks import PER_TASK, TASK, TaskConfig

__all__ = [
    "CORES",
    "PER_TASK",
    "TASK",
    "EncoderConfig",
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
]
