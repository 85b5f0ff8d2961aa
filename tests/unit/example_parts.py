"""Small parts of every kind, found as third-party parts are: ``tests.unit.example_parts:Class``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt

from decentral.errors import ConfigError, DataError
from decentral.network.model import NetworkModel
from decentral.tasks.base import Examples, Metric, Shapes, Split

if TYPE_CHECKING:
    from decentral.arrays import FloatArray, IntArray
    from decentral.fragments import Fragmenter
    from decentral.seeding import Seeds
    from decentral.tasks.base import Learner, Scores, Sgd
    from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Node 2i talks to node 2i + 1."""

    n: int
    seeds: Seeds  # known to type checkers alone, as an injected field may be
    weight: Annotated[float, Gt(0)] = 1.0

    symmetric: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ConfigError(f"pairs(n={self.n}): n must be even; use n = {self.n + 1}")

    def targets(self, i: int, t: int, k: int) -> tuple[int, ...]:
        """The other of the pair."""
        del t, k
        return (i ^ 1,)

    sources = targets


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """An algorithm with a setting of every type."""

    local_steps: int
    topology: Topology
    fragmenter: Fragmenter
    count: int
    rate: float = 0.5
    mode: Literal["slow", "fast"] = "slow"
    levels: tuple[float, ...] = (0.1, 0.2)
    limit: int | None = None
    flush: bool = True
    share: Annotated[float, Gt(0)] | Literal["all", "half"] = 0.5

    def run(self, node: object) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Rumor:
    """An asynchronous algorithm that chooses recipients itself."""

    synchronous: ClassVar[bool] = False

    local_steps: int
    fragmenter: Fragmenter
    recipients: Annotated[int, Ge(1)] = 2

    def check(self, n: int) -> None:
        """Complain where there are too few others."""
        if self.recipients >= n:
            raise ConfigError(
                f"algorithm.recipients = {self.recipients}: a node has {n - 1} others; use at most {n - 1}"
            )
        if n % 2:
            raise ConfigError(f"rumor(n={n}): half the nodes are active, so n must be even; use n = {n + 1}")

    def volume(self, n: int) -> float:
        """Every node but one sends to ``recipients`` others."""
        return self.recipients * (n - 1) / n

    def run(self, node: object) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Whisper:
    """An asynchronous algorithm that does not tell how much it sends, and takes a graph if there is one."""

    local_steps: int
    topology: Topology | None = None

    def run(self, node: object) -> None:
        """Does nothing."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """A network of one's own: every link has ``mbps``."""

    mbps: Annotated[float, Gt(0)] = 8.0

    def build(self, n: int, seeds: Seeds) -> NetworkModel:
        """Rates of ``mbps``, no latency."""
        if n > 20:
            raise ConfigError(f"wire(n={n}): too many nodes; use at most 20")
        rates = np.full(n, self.mbps * 1e6)
        latency = np.zeros((1, 1), dtype=np.int64)
        return NetworkModel(n=n, uplink_bps=rates, downlink_bps=rates, latency_ns=latency, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Ten parameters and a hundred rows; rows have owners where ``owners`` > 0."""

    rows: Annotated[int, Ge(1)] = 100
    owners: Annotated[int, Ge(0)] = 0
    present: bool = True

    metric: ClassVar[Metric] = Metric("acc", higher_is_better=True)

    def check(self) -> None:
        """Complain where the data is said not to be present."""
        if not self.present:
            raise DataError("line: points.csv is missing; put it into the data folder")

    def shapes(self) -> Shapes:
        """d = 10."""
        return (("weight", (2, 4)), ("bias", (2,)))

    def load(self) -> LoadedLine:
        """The rows, numbered."""
        return LoadedLine(self)


class LoadedLine:
    """Rows of a ``Line``; row r, of training and of test, belongs to owner r modulo the number of owners."""

    def __init__(self, task: Line) -> None:
        groups = np.arange(task.rows) % task.owners if task.owners else None
        self.examples = Examples(count=task.rows, labels=np.arange(task.rows) % 2, groups=groups)

    def rows(self, split: Split) -> int:
        """As many test rows as training rows."""
        del split
        return self.examples.count

    def local_rows(self, split: Split, shard: IntArray) -> IntArray:
        """Rows whose owner has a row in ``shard``."""
        del split
        groups = self.examples.groups
        if groups is None:
            raise ConfigError('evaluate.scope = "local": line has no owners of rows; use "global"')
        return np.flatnonzero(np.isin(groups, groups[shard]))

    def initial(self, seed: int) -> FloatArray:
        """Not needed to deal rows."""
        raise NotImplementedError

    def learner(self, shard: IntArray, sgd: Sgd) -> Learner:
        """Not needed to deal rows."""
        raise NotImplementedError

    def evaluate(self, x: FloatArray, split: Split, rows: IntArray | None = None) -> Scores:
        """Not needed to deal rows."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A partitioner whose field no file can hold."""

    owner: object
    where: np.random.Generator

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Never called."""
        raise NotImplementedError
