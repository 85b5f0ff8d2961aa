"""Algorithms that fail on purpose, used as third-party parts (``tests.integration.faulty:Faulty``)."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar, Literal

from decentral.mixing import average
from decentral.node import Node
from decentral.topology import Topology


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """Epidemic Learning in which one node misbehaves at the start of one round.

    Args:
        local_steps: H.
        topology: graph of round t.
        how: ``raise`` an exception, ``exit`` with code 0, ``return`` before the last round, ``kill`` itself,
            ``segfault`` (the signal), ``never_send`` stays silent.
        node: who.
        round: when, from 0.
    """

    synchronous: ClassVar[bool] = True

    local_steps: int
    topology: Topology
    how: Literal["raise", "exit", "return", "kill", "segfault", "never_send"]
    node: int = 3
    round: int = 4

    def run(self, node: Node) -> None:
        """EL until it is time to fail."""
        whole = node.fragments()
        for t in node.rounds():
            silent = False
            if node.id == self.node and t == self.round:
                if self.how == "return":
                    return
                silent = self._fail()
            node.train(steps=self.local_steps)
            targets = () if silent else self.topology.targets(node.id, t, 0)
            outgoing = [(j, node.message(t, 0, whole)) for j in targets]
            expected = [(j, 0) for j in self.topology.sources(node.id, t, 0)]
            node.update(average, node.exchange(t, outgoing, expected), whole)

    def _fail(self) -> bool:
        match self.how:
            case "raise":
                raise ValueError("the learning rate is purple")
            case "exit":
                os._exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
        return self.how == "never_send"


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Exchanges by rounds though it says that it is asynchronous.

    Args:
        local_steps: H.
        topology: graph of round t.
    """

    synchronous: ClassVar[bool] = False

    local_steps: int
    topology: Topology

    def run(self, node: Node) -> None:
        """One round that cannot work."""
        whole = node.fragments()
        for t in node.rounds():
            node.train(steps=self.local_steps)
            node.update(average, node.exchange(t, [], []), whole)
