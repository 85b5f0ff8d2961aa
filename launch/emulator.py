"""The emulated network of one run: who keeps its time, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from decentral.network.ledger import Ledger
from decentral.network.links import Links
from decentral.network.log import Trace, describe, write_network_log
from decentral.records import Recorder, Value
from decentral.timekeeper import Timekeeper
from launch.build import Workload, failure_deadline_ns, limit_ns, synchronous

_TRACED_ROUNDS = 4
"""Nominal rounds whose transfers are kept for the timeline figure."""


class Emulation:
    """Timekeeper and emulated network of one run, and what is to be told of them afterwards.

    Args:
        workload: the run.
        run: its id.
    """

    def __init__(self, workload: Workload, run: bytes) -> None:
        composition, n = workload.composition, workload.arm.nodes
        compute = composition.compute
        ledger = Ledger(n)
        self._trace = Trace(_TRACED_ROUNDS * compute.nominal_ns)
        self._links = Links(composition.network, ledger, self._trace)
        self._header: dict[str, Value] = {
            "run": run.hex(),
            "arm": workload.arm.name,
            "seed": composition.seeds.run_seed,
            "nodes": n,
            **describe(composition.network, [compute.nominal_of_ns(node) for node in range(n)]),
        }
        self.timekeeper = Timekeeper(
            self._links,
            ledger,
            eager=[synchronous(workload)] * n,
            limit_ns=limit_ns(workload),
            patience_ns=failure_deadline_ns(workload),
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"timekeeper": self.timekeeper.state(), "trace": self._trace.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what ``state`` gave."""
        self.timekeeper.restore(state["timekeeper"])
        self._trace.restore(state["trace"])

    def write(
        self, recorder: Recorder, reason: str, cpu_s: float, refused: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Close the accounts and write ``network.jsonl``; also of a run that was cut short.

        Args:
            recorder: takes the lines.
            reason: how the run ended.
            cpu_s: what keeping time took.
            refused: what the timekeeper's socket refused, by reason.
        """
        end_ns = self.timekeeper.now_ns
        self._links.close(end_ns)
        write_network_log(
            recorder,
            self._links,
            self._trace,
            header=self._header,
            end_ns=end_ns,
            reason=reason,
            cpu_s=cpu_s,
            refused=refused,
        )
