"""The memory tasks by name."""

from experiments.memory.tasks import associative_recall, binding, copying, cue, rule_change
from experiments.memory.tasks.base import ANSWERS, FEATURES, Batch, Task

__all__ = ["ANSWERS", "FEATURES", "TASKS", "Batch", "Task"]

# One line for each: what it asks, the length that cores are trained on, and what draws its batches.
TASKS = {
    "cue-5": Task("name the cue of the episode's first step 5 steps later", 5, cue.draw),
    "cue-15": Task("name the cue of the episode's first step 15 steps later", 15, cue.draw),
    "cue-50": Task("name the cue of the episode's first step 50 steps later", 50, cue.draw),
    "binding": Task("4 pairs of a new vector and an answer; then name the answer of each vector", 4, binding.draw),
    "copy": Task("4 symbols, one after the other; then name them in this order", 4, copying.draw),
    "recall": Task("4 letters, each followed by its answer; then name that of each letter", 4, associative_recall.draw),
    "rule-change": Task("24 trials by a rule that feedback tells, and that changes on the way", 24, rule_change.draw),
}  # fmt: skip
"""Every memory task by name. One that lies elsewhere can be added before it is used."""
