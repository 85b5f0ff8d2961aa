"""Parts that fail on purpose, used as third-party parts (``tests.integration.faulty:Faulty``)."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from decentral.arrays import IntArray
from decentral.mixing import average
from decentral.node import Node
from decentral.tasks.base import Examples
from decentral.topology import Topology

LIMIT_BYTES = 1 << 35
MOST_MIB = 2048
"""What ``eat`` stops at, should nobody stop it."""


@dataclass(frozen=True, kw_only=True)
class Faulty:
    """Epidemic Learning in which one node misbehaves at the start of one round.

    Args:
        local_steps: H.
        topology: graph of round t.
        how: ``raise`` an exception, ``exit`` with code 0, ``return`` before the last round, ``kill`` itself,
            ``segfault`` (the signal), ``never_send`` stays silent, ``limit`` and ``limit_torch`` ask for more
            memory than their own RLIMIT_AS allows, ``eat`` takes memory until the kernel kills it,
            ``kill_in_exchange`` kills itself when it has sent and would wait,
            ``blocked`` reads from a pipe into which nobody writes, as from a file system that hangs.
        node: who.
        round: when, from 0.
    """

    synchronous: ClassVar[bool] = True

    local_steps: int
    topology: Topology
    how: Literal[
        *("raise", "exit", "return", "kill", "segfault", "kill_in_exchange", "never_send"),
        *("limit", "limit_torch", "eat", "blocked"),
    ]
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
            if self.how == "kill_in_exchange" and node.id == self.node and t == self.round:
                node._medium._hear = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[attr-defined]
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
            case "limit" | "limit_torch":
                resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
                make = np.ones if self.how == "limit" else torch.ones
                make(2 * LIMIT_BYTES // 8)
            case "blocked":
                os.read(os.pipe()[0], 1)
            case "eat":
                eaten = []
                while len(eaten) << 4 < MOST_MIB:
                    eaten.append(b"x" * (16 << 20))
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


@dataclass(frozen=True, kw_only=True)
class Moody:
    """A partitioner that deals rows otherwise in every process that loads the data."""

    def split(self, examples: Examples, n: int, rng: np.random.Generator) -> list[IntArray]:
        """Equal shares of the rows in an order that ``rng`` does not decide."""
        del rng
        return np.array_split(np.random.default_rng(os.getpid()).permutation(examples.count), n)
