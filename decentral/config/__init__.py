"""One TOML file describes an experiment completely; what is impossible in it is refused before a run."""

from __future__ import annotations

from decentral.config.load import SHIPPED, load
from decentral.config.schema import (
    Arm,
    CheckpointSettings,
    ComputeSettings,
    DataSettings,
    EvaluateSettings,
    Experiment,
    FragmentSettings,
    Part,
    RunSettings,
    TrainSettings,
)

__all__ = [
    "SHIPPED",
    "Arm",
    "CheckpointSettings",
    "ComputeSettings",
    "DataSettings",
    "EvaluateSettings",
    "Experiment",
    "FragmentSettings",
    "Part",
    "RunSettings",
    "TrainSettings",
    "load",
]
