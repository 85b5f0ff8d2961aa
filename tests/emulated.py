"""Scripted nodes for tests of emulated time, on networks with round numbers: one byte takes a nanosecond."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from decentral.errors import Deadlock
from decentral.inline import InlineWire, Saving, Scheduler
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.network.ledger import Ledger
from decentral.network.links import Item, Links
from decentral.network.model import INFINITE_NS, NetworkModel
from decentral.seeding import Seeds
from decentral.speech import ANY, Answer, Put, Role, Served, Speech, Stop, Telling, Totals
from decentral.timekeeper import Timekeeper
from decentral.virtual import VirtualMedium
from decentral.wire import Heard

BYTE_PER_NS = 8e9
"""bit/s at which one byte takes one nanosecond."""
RUN = b"emulated"
MAP = bytes(8)


def network(
    n: int, *, latency_ns: int = 0, rates: Sequence[float] | None = None, **settings: Any
) -> NetworkModel:
    """``n`` nodes whose links carry one byte per nanosecond, or ``rates`` of it."""
    bps = BYTE_PER_NS * np.array([1.0] * n if rates is None else rates)
    latency = np.array([[latency_ns]])
    return NetworkModel(n=n, uplink_bps=bps, downlink_bps=bps, latency_ns=latency, seeds=Seeds(1), **settings)


def keep(
    model: NetworkModel, *, eager: bool = False, limit_ns: int = INFINITE_NS, patience_ns: int = 0
) -> tuple[Timekeeper, Links, Ledger]:
    """A timekeeper of ``model`` and what it keeps."""
    ledger = Ledger(model.n)
    links = Links(model, ledger)
    made = Timekeeper(links, ledger, eager=[eager] * model.n, limit_ns=limit_ns, patience_ns=patience_ns)
    return made, links, ledger


def item(to: int, nbytes: int, sequence: int, role: Role = Role.LATEST, *, tag: int = 0, k: int = 0) -> Item:
    """One message; the tag of a request follows from its number."""
    return Item(to, nbytes, sequence, -2 - sequence if role is Role.REQUEST else tag, k, role)


def until(
    node: int, at_ns: int, wake_ns: int, *puts: Put, then_ns: int = 0, tag: int = ANY, count: int = 0
) -> Speech:
    """``node`` wants an answer at ``wake_ns``, or when ``count`` messages have arrived."""
    return Speech(node, at_ns, puts, tag, count, wake_ns, then_ns)


def forever(node: int, at_ns: int, *puts: Put, tag: int = ANY, count: int = 1, then_ns: int = 0) -> Speech:
    """``node`` waits for messages without end."""
    return Speech(node, at_ns, puts, tag, count, INFINITE_NS, then_ns)


class Leave(NamedTuple):
    """A node's last word."""

    at_ns: int
    drop: bool = True


Script: TypeAlias = Generator[Speech | Leave, Answer, None]
"""What one node tells, one word for each answer; its last is ``Leave``."""
Choose: TypeAlias = Callable[[int], int]
"""Which of so many nodes that could go on is the next."""


class Account(NamedTuple):
    """What one node was told in all.

    Attributes:
        answers: times, whether complete, arrivals, totals.
        served: requests to it, in order.
        started: numbers of its transfers, in order.
        stop: time and totals of the end; None if it did not come.
    """

    answers: list[tuple[int, bool, tuple[tuple[int, int], ...], Totals]]
    served: list[Served]
    started: list[int]
    stop: tuple[int, Totals] | None


def play(
    timekeeper: Timekeeper,
    scripts: Sequence[Script],
    choose: Choose = lambda count: 0,
    *,
    hold: Callable[[], bool] = lambda: False,
    words: int = 1_000_000,
    log: list[Telling] | None = None,
) -> tuple[list[Account], str | None]:
    """Let scripted nodes speak, in the order that ``choose`` gives, to the end, or ``words`` words.

    Checks of everything told: payloads that a node needs have been announced to their senders.

    Returns:
        What each node heard, and the text of the deadlock in which it ended, if it did.
    """
    heard = [Account([], [], [], None) for _ in scripts]
    ready: list[tuple[int, Answer | None]] = [(node, None) for node in range(len(scripts))]
    for _ in range(words):
        if not ready:
            break
        node, answer = ready.pop(choose(len(ready)))
        word = next(scripts[node]) if answer is None else scripts[node].send(answer)
        if isinstance(word, Leave):
            timekeeper.leave(node, word.at_ns, drop=word.drop)
        else:
            timekeeper.speak(word)
        if ready and hold():  # several words may come before time goes on
            continue
        try:
            told = timekeeper.advance()
        except Deadlock as deadlock:
            return heard, str(deadlock)
        for telling in told:
            if log is not None:
                log.append(telling)
            it = heard[telling.node]
            it.served.extend(telling.served)
            it.started.extend(telling.started)
            if isinstance(telling, Answer):
                it.answers.append((telling.at_ns, telling.complete, tuple(telling.arrived), telling.totals))
                ready.append((telling.node, telling))
            elif isinstance(telling, Stop):
                heard[telling.node] = it._replace(stop=(telling.at_ns, telling.totals))
        _check_announced(timekeeper, told, heard)
    return heard, None


def _check_announced(timekeeper: Timekeeper, told: Iterable[Telling], heard: Sequence[Account]) -> None:
    for telling in told:
        for requester, request, _, ping in telling.served:
            assert ping or request in heard[requester].started, "who serves it needs the request"
        if isinstance(telling, Answer):
            for sender, sequence in telling.arrived:
                eager = timekeeper._nodes[sender].eager and sequence >= 0
                assert eager or sequence in heard[sender].started, "who hears of a message needs its payload"
                if sequence < 0:
                    assert sequence in [served.reply for served in heard[sender].served]


def message(sender: int, round_: int = 0, k: int = 0, size: int = 1, value: float = 0.0) -> Message:
    """A message of ``size`` float32."""
    return Message(sender, round_, k, np.full(size, value, dtype=np.float32), MAP)


class Jumbled(Scheduler):
    """Inline nodes that run in random order and find payloads and words of the timekeeper in random order.

    Words of the timekeeper to one node stay in their order, as on a socket; all else may come in any.
    """

    seed = 0

    def __init__(
        self,
        timekeeper: Timekeeper,
        observe: Callable[[Message], None],
        run: bytes,
        saving: Saving | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(timekeeper, observe, run, saving, **settings)
        self.random = random.Random(self.seed)
        self._ready: deque[int] = _Shuffled(self.random)

    def next(self, node: int, block: bool, what: Callable[[], str]) -> Heard | None:
        """As if other nodes ran meanwhile and messages took any time."""
        task = self._tasks[node]
        if not block and self.random.random() < 0.3:
            return None
        while block and self.random.random() < 0.3 and len(self._ready):
            # Others first, although something is here already.
            self._ready.append(node)
            self._hand_over(task)
        if task.payloads and self.random.random() < 0.5:
            index = self.random.randrange(len(task.payloads))
            task.payloads.rotate(-index)
            payloads = task.payloads.popleft()
            task.payloads.rotate(index)
            return payloads
        return super().next(node, block, what)


class _Shuffled(deque[int]):
    """Gives back what is in it in random order."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def popleft(self) -> int:
        self.rotate(self._chance.randrange(len(self)))
        return super().popleft()


class Inline:
    """Bodies on ``VirtualMedium`` and one network, in this process.

    Args:
        model: the network.
        jumble: seed of a random order in real time; None: the usual one.
    """

    def __init__(
        self,
        model: NetworkModel,
        *,
        eager: bool = False,
        limit_ns: int = INFINITE_NS,
        jumble: int | None = None,
    ) -> None:
        self.timekeeper, self.links, self.ledger = keep(model, eager=eager, limit_ns=limit_ns)
        self.observed: list[Message] = []
        made: Scheduler
        if jumble is None:
            made = Scheduler(self.timekeeper, self.observed.append, RUN)
        else:
            made = Jumbled(self.timekeeper, self.observed.append, RUN)
            made.random.seed(jumble)
        self.scheduler = made
        self.wires = [InlineWire(made, node, 1 << 20) for node in range(model.n)]
        self.media = [
            VirtualMedium(node=node, wire=wire, eager=eager, limit_ns=limit_ns)
            for node, wire in enumerate(self.wires)
        ]

    def run(self, *bodies: Callable[[VirtualMedium], None], drop: bool = True) -> None:
        """Run one body per node; each then leaves and lingers."""

        def whole(body: Callable[[VirtualMedium], None], medium: VirtualMedium) -> None:
            body(medium)
            medium.leave(drop=drop)
            medium.linger()

        for node, body in enumerate(bodies):
            self.scheduler.add(node, lambda body=body, node=node: whole(body, self.media[node]))  # type: ignore[misc]
        self.scheduler.run()
        self.ledger.check()


def train(poll: Callable[[], None] | None) -> None:
    """Five steps of training."""
    for _ in range(5):
        if poll is not None:
            poll()


def to(
    destination: int, nbytes: int, *, sender: int, round_: int = 0, k: int = 0, value: float = 0.0
) -> Outgoing:
    """A message of ``nbytes`` for ``destination``."""
    return destination, message(sender, round_, k, nbytes // 4, value)


def account(ledger: Ledger) -> Counter[str]:
    """Messages of all links by what became of them."""
    total: Counter[str] = Counter()
    for row in ledger.rows():
        for name, values in row.items():
            if isinstance(values, list) and name != "to" and not name.endswith("_bytes"):
                total[name] += sum(values)
    return total
