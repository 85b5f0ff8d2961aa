"""Rates and latencies of a network from a file of the user's."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decentral.config.problems import choose, sentence, shown
from decentral.errors import ConfigError, DataError
from decentral.network.link_settings import FASTEST_MBPS, LONGEST_MS, SLOWEST_MBPS

KEY = "network.path"
_KEYS = ("uplink_mbps", "downlink_mbps", "pair_mbps", "latency_ms")


class _Quantity(NamedTuple):
    """What numbers a key takes, in the key's unit.

    Attributes:
        absent: the meaning of null; None: null is refused.
        diagonal: takes the place of what a matrix has there.
    """

    name: str
    low: float
    high: float
    absent: float | None
    diagonal: float


_RATE = _Quantity("rate", SLOWEST_MBPS, FASTEST_MBPS, absent=math.inf, diagonal=math.inf)
_LATENCY = _Quantity("latency", 0.0, LONGEST_MS, absent=None, diagonal=0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrices:
    """What a file says; infinite is unlimited.

    Attributes:
        uplink_mbps: shape (n,).
        downlink_mbps: shape (n,).
        pair_mbps: shape (n, n); None: no caps.
        latency_ms: shape (n, n), or () for one value everywhere.
    """

    uplink_mbps: NDArray[np.float64]
    downlink_mbps: NDArray[np.float64]
    pair_mbps: NDArray[np.float64] | None
    latency_ms: NDArray[np.float64]


def read_matrices(path: str, n: int) -> Matrices:
    """What the JSON or TOML file ``path`` says about a network of ``n`` nodes.

    Raises:
        DataError: the file is absent or unreadable.
        ConfigError: it holds an unknown key, an impossible value, or a list or matrix not for ``n`` nodes.
    """
    found = _Checked(path, n, _read(path))
    pair = found.matrix("pair_mbps", _RATE)
    latency = found.matrix("latency_ms", _LATENCY)
    return Matrices(
        uplink_mbps=found.vector("uplink_mbps"),
        downlink_mbps=found.vector("downlink_mbps"),
        pair_mbps=None if pair is None else np.broadcast_to(pair, (n, n)).copy(),
        latency_ms=np.zeros(()) if latency is None else latency,
    )


def _read(path: str) -> dict[str, Any]:
    file = Path(path).expanduser()
    if file.suffix not in {".json", ".toml"}:
        raise ConfigError(sentence(KEY, path, "the name must end in .json or .toml", "rename it"))
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError as error:
        step = "write the rates there or choose another network such as star"
        raise DataError(sentence(KEY, path, "there is no such file", step)) from error
    except (OSError, ValueError, RecursionError) as error:
        cause = str(error).replace("\n", " ")
        raise DataError(sentence(KEY, path, f"cannot be read ({cause})", "correct the file")) from error
    if not isinstance(document, dict) or not document:
        expectation = f"its content {shown(document)} is no table of rates"
        raise ConfigError(sentence(KEY, path, expectation, f"write some of {', '.join(_KEYS)}"))
    for key in document:
        if key not in _KEYS:
            expectation = f"its key {shown(key)} is not known"
            raise ConfigError(sentence(KEY, path, expectation, choose(key, _KEYS)))
    return document


@dataclass(frozen=True)
class _Checked:
    """Values of a file, one key at a time."""

    path: str
    n: int
    document: dict[str, Any]

    def vector(self, key: str) -> NDArray[np.float64]:
        """Rates of the n nodes."""
        value = self.document.get(key)
        if not isinstance(value, list):
            return np.full(self.n, self._number(value, key, _RATE))
        self._length(value, key, f"{self.n} rates, one per node")
        rates = [self._number(each, f"{key}[{i}]", _RATE) for i, each in enumerate(value)]
        return np.array(rates, dtype=np.float64)

    def matrix(self, key: str, quantity: _Quantity) -> NDArray[np.float64] | None:
        """Values of all ordered pairs, or one for all of them; a matrix's diagonal is not looked at."""
        value = self.document.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            return np.array(self._number(value, key, quantity))
        self._length(value, key, f"{self.n} rows, one per sender")
        rows = []
        for i, row in enumerate(value):
            if not isinstance(row, list):
                raise self._refusal(f"{key}[{i}]", row, "is no row", f"write a list of {self.n} numbers")
            self._length(row, f"{key}[{i}]", f"{self.n} columns, one per receiver")
            rows.append(
                [
                    quantity.diagonal if i == j else self._number(each, f"{key}[{i}][{j}]", quantity)
                    for j, each in enumerate(row)
                ]
            )
        return np.array(rows, dtype=np.float64)

    def _number(self, value: object, key: str, quantity: _Quantity) -> float:
        if value is None and quantity.absent is not None:
            return quantity.absent
        low, high = quantity.low, quantity.high
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            step = f"write a number from {low:g} to {high:g}"
            raise self._refusal(key, value, f"is no {quantity.name} that a link can have", step)
        return float(value)

    def _length(self, values: list[Any], key: str, expected: str) -> None:
        if len(values) != self.n:
            step = f"write {self.n} entries or use nodes = {len(values)}"
            expectation = f"has {len(values)} entries instead of {expected}"
            raise ConfigError(sentence(KEY, self.path, f"{key} {expectation}", step))

    def _refusal(self, key: str, value: object, expectation: str, step: str) -> ConfigError:
        text = "null" if value is None else shown(value)
        return ConfigError(sentence(KEY, self.path, f"{key} = {text} {expectation}", step))
