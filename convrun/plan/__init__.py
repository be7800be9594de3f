"""Plans: a recipe resolved for a machine."""

from convrun.plan.making import make_plan
from convrun.plan.plan import Plan, checkpoint_bytes, kept_checkpoints, sharding_note, warnings
from convrun.process.machine import Machine

__all__ = ["Machine", "Plan", "checkpoint_bytes", "kept_checkpoints", "make_plan", "sharding_note", "warnings"]
