"""What an experiment is made of: frozen, strict models, one per table of the file.

Strict: an integer may stand for a float, nothing else is converted; numbers are finite; unknown keys are
errors.
The models hold the canonical form (a part is ``name`` and ``settings``), which round-trips through JSON; the
spelling of the file is turned into it by :mod:`decentral.config.merge`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from decentral.config import values
from decentral.config.values import refusal

# siblings of the arms' folders in a run folder
_RUN_FILES = frozenset(
    [
        "figures",
        "files",
        "logs",
        "experiment.toml",
        "resolved.json",
        "manifest.json",
        "summary.csv",
        "report.html",
    ]
)


class Settings(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Part(Settings):
    """An exchangeable part: the name of its class and its hyper-parameters (checked by ``launch.parts``).

    ``name`` is that of a shipped part or ``package.module:Class``.
    """

    name: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any] = {}


class FragmentSettings(Settings):
    """Into how many fragments a model is cut (K), and by which map."""

    count: Annotated[int, Field(ge=1, examples=[16])] = 1
    map: Literal["per_tensor", "global", "contiguous", "per_layer"] = "per_tensor"


class DataSettings(Settings):
    """The task, how its training rows are dealt to nodes, and the share of them set aside for validation."""

    name: Annotated[str, Field(min_length=1, examples=["digits"])]
    settings: dict[str, Any] = {}
    partition: Part = Part(name="iid")
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0


class TrainSettings(Settings):
    """Local training: SGD's settings and either H local steps or a number of epochs per round.

    With ``mode = "none"`` nothing is trained and no data is read: nodes exchange short random vectors, which
    weigh on the emulated network what models would (decentral.tasks.untrained).
    """

    mode: Literal["sgd", "none"] = "sgd"
    lr: Annotated[float, Field(ge=0, examples=[0.05])]
    batch: Annotated[int, Field(ge=1, examples=[8])]
    local_steps: Annotated[int, Field(ge=1, examples=[8])] | None = None
    full_epochs: Annotated[int, Field(ge=1, examples=[1])] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if self.local_steps is None and self.full_epochs is None:
            step = "add for example local_steps = 8"
            raise refusal("local_steps (H) or full_epochs is required", step, "local_steps", incomplete=True)
        if self.local_steps is not None and self.full_epochs is not None:
            expectation = f"cannot stand beside local_steps = {self.local_steps}"
            raise refusal(expectation, "remove one of the two", "full_epochs", self.full_epochs)
        return self


class RunSettings(Settings):
    """How long a run lasts, when it is measured and how it starts (algorithms.md D12, 1.7, 3.5).

    A run ends after ``max_rounds`` local rounds of every node or after ``time_limit_s``, whichever comes
    first. Seconds are those of ``clock``: emulated ones under the virtual clock, real ones under the wall's.

    With ``on_node_failure = "continue"`` the loss of a node does not end the run: the others wait for it for
    another ``failure_deadline_s`` of the run's clock (default: one nominal compute time, under the wall
    clock 1 s), go on without it, and take in nothing of it any more.
    """

    max_rounds: Annotated[int, Field(ge=1, examples=[60])] | None = None
    time_limit_s: Annotated[float, Field(gt=0, le=1e9, examples=[800.0])] | None = None
    clock: Literal["virtual", "wall"] = "virtual"
    test_after: Annotated[int, Field(ge=1, examples=[10])] = 10
    init: Annotated[str, AfterValidator(values.init)] = "common"
    liveness_timeout_s: Annotated[float, Field(ge=0.1, le=1e6, examples=[300.0])] = 300.0
    save_models: bool = True
    on_node_failure: Literal["stop", "continue"] = "stop"
    failure_deadline_s: Annotated[float, Field(gt=0, le=1e9, examples=[5.0])] | None = None

    @model_validator(mode="after")
    def _some_end(self) -> RunSettings:
        if self.max_rounds is None and self.time_limit_s is None:
            step = "add for example max_rounds = 60"
            raise refusal("max_rounds or time_limit_s is required", step, "max_rounds", incomplete=True)
        return self

    @model_validator(mode="after")
    def _losses(self) -> RunSettings:
        given = self.failure_deadline_s
        if self.on_node_failure == "stop" and given is not None:
            expectation = 'has a meaning with on_node_failure = "continue" only'
            raise refusal(expectation, "add that key or remove this one", "failure_deadline_s", given)
        return self

    @property
    def perturbation(self) -> float | None:
        """The m of ``init = "perturb(m)"``, None for the other two."""
        match = values.PERTURB.fullmatch(self.init)
        return float(match[1]) if match else None


class EvaluateSettings(Settings):
    """Rows on which models are scored: ``samples`` of them for curves, all of the split at the end."""

    samples: Annotated[int, Field(ge=1, examples=[1000])] | None = None
    split: Literal["test", "validation"] = "test"
    scope: Literal["global", "local"] = "global"


class ComputeSettings(Settings):
    """Emulated cost of computing, per node and local round; has no effect under a wall clock.

    The nominal time is ``time_per_round`` seconds, or what training takes on this machine ("measured"), or
    as long as communicating takes ("match_comm", DivShare's App. B): the bytes of a round over the fast
    uplink ("nominal"), or the time in which this network without its stragglers delivers 99 % of a round's
    messages ("calibrated"). ``recipients`` is the number of whole models that a node sends per round for
    these two; without it, it is what the algorithm attempts. Factors and jitter apply to every kind.
    """

    time_per_round: Annotated[float, Field(gt=0, le=1e6)] | Literal["match_comm", "measured"] = 1.0
    match_comm: Literal["nominal", "calibrated"] = "nominal"
    recipients: Annotated[int, Field(ge=1, examples=[6])] | None = None
    slow_nodes: Annotated[int, Field(ge=0)] = 0
    slow_factor: Annotated[float, Field(ge=1, le=1e6)] = 5.0
    slow_which: Literal["random", "first"] = "random"
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0


class CheckpointSettings(Settings):
    """When a run saves all that it needs to be resumed after a kill; under the virtual clock only.

    After every ``every`` local rounds of the slowest node, after every ``every_s`` real seconds, or both;
    never where neither is given. No result depends on it.
    """

    every: Annotated[int, Field(ge=1, examples=[20])] | None = None
    every_s: Annotated[float, Field(gt=0, le=1e9, examples=[600.0])] | None = None

    @property
    def asked(self) -> bool:
        """Whether checkpoints are made at all."""
        return self.every is not None or self.every_s is not None


class Arm(Settings):
    """One contender of a comparison, complete: what an agent on another host needs besides a seed.

    ``topology`` is None where the algorithm chooses recipients itself; ``launch.compose`` requires or refuses
    it.
    """

    name: Annotated[str, Field(examples=["Mosaic K=16"]), AfterValidator(values.arm_name)]
    nodes: Annotated[int, Field(le=100_000, examples=[16]), AfterValidator(values.nodes)]
    algorithm: Part
    topology: Part | None = None
    fragments: FragmentSettings = FragmentSettings()
    data: DataSettings
    train: TrainSettings
    network: Part = Part(name="ideal")
    run: Annotated[RunSettings, Field(examples=[{"max_rounds": 60}])]
    evaluate: EvaluateSettings = EvaluateSettings()
    compute: ComputeSettings = ComputeSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()

    @model_validator(mode="after")
    def _validation_rows(self) -> Arm:
        if self.evaluate.split == "validation" and self.data.validation == 0:
            step = "set for example data.validation = 0.1"
            raise refusal(
                "needs rows that data.validation sets aside", step, "evaluate.split", "validation", True
            )
        return self

    @property
    def slug(self) -> str:
        """Name of this arm's folder: ASCII, never hidden; an experiment's arms have different ones."""
        text = re.sub(r"[^A-Za-z0-9._=+-]+", "-", self.name).strip("-.") or "arm"
        return f"{text}-arm" if text.casefold() in _RUN_FILES else text


class Header(Settings):
    """Keys of the file that no arm can override."""

    name: Annotated[str, Field(examples=["mosaic-vs-el"]), AfterValidator(values.run_name)]
    description: str = ""
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1, examples=[(1, 2, 3)]),
        AfterValidator(values.distinct),
    ] = (1,)
    target: Annotated[float, Field(examples=[0.6])] | None = None
    """Score whose time of reaching the report gives for every arm; chosen before the curves are seen."""


class Experiment(Header):
    """Every arm, to be run once per seed, and the text of the file it came from.

    Attributes:
        arms: in the order of the file.
        source: the file.
        inherited: by the name of an arm, the keys that it did not write itself but has from what all arms
            share: an arm that cannot use such a table ignores it.
    """

    arms: tuple[Arm, ...]
    source: str = ""
    inherited: dict[str, tuple[str, ...]] = {}

    def resolved(self) -> dict[str, Any]:
        """All keys with the values that hold, defaults included, fit for JSON.

        Hyper-parameters that a part has and the file does not give are there only after
        ``launch.compose.complete``: what a part's defaults are is known to the part's class alone.
        """
        return {
            "name": self.name,
            "description": self.description,
            "seeds": list(self.seeds),
            "target": self.target,
            "arms": [arm.model_dump(mode="json") for arm in self.arms],
        }
