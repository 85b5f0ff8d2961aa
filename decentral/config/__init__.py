"""One TOML file describes an experiment completely; anything impossible in it is refused before anything starts."""

from __future__ import annotations

from decentral.config.load import SHIPPED, load
from decentral.config.schema import (
    Arm,
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
