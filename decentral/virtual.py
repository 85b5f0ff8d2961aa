"""A node in emulated time: its half of what ``decentral.timekeeper`` decides.

Payloads are pushed late: a message stays with its sender until the timekeeper says that its transfer has
started, so that what a flush drops costs nothing but its entry. Synchronous nodes, whose messages are all
needed, push at once. A payload that is here before its message has arrived in emulated time is held.

No wait can go in a circle: a node waits for payloads of transfers and for answers to requests that lie before
its present, and serves those before everything else. Payloads that ended with their sender are not waited
for: once a grace is over, their messages are as if they had not arrived.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import ClassVar, TypeVar

from decentral.checkpoint.state import Stateful
from decentral.clock import NS_PER_S
from decentral.errors import RunFailed
from decentral.losses import Losses
from decentral.medium import Outgoing, Poll, Server
from decentral.messages import Message
from decentral.network.links import Item
from decentral.network.model import INFINITE_NS
from decentral.payloads import Inbox, Outbox
from decentral.speech import ANY, COMPUTING, Answer, Gone, Put, Role, Served, Speech, Stop, Totals
from decentral.wire import Heard, Wire

T = TypeVar("T")


class VirtualMedium(Stateful):
    """A ``Medium`` in emulated time.

    Args:
        node: its id.
        wire: to the others.
        eager: push payloads when they are put (synchronous algorithms).
        limit_ns: the run's time limit, as the timekeeper knows it.
        payload_bytes: what a message weighs on the emulated network.
    """

    GIVEN: ClassVar[str] = "_node _wire _eager _limit_ns _payload_bytes _server"

    def __init__(
        self,
        *,
        node: int,
        wire: Wire,
        eager: bool,
        limit_ns: int = INFINITE_NS,
        payload_bytes: Callable[[Message], int] = attrgetter("nbytes"),
    ) -> None:
        self.totals = Totals(0, 0, 0, 0)
        self.losses = Losses()
        self.missed = 0
        self.interrupted = False
        self._node = node
        self._wire = wire
        self._eager = eager
        self._limit_ns = limit_ns
        self._payload_bytes = payload_bytes
        self._now_ns = 0
        self._promised_ns = 0
        self._then_ns = 0
        self._wake_ns = 0
        self._puts: list[Put] = []
        self._sequence = 0
        self._last_put_ns = 0
        self._flush = (0, 0)  # when the last one is, and the first message after it
        self._outbox = Outbox()
        self._replies = Outbox()
        self._owed: set[int] = set()
        self._inbox = Inbox()
        self._unserved: deque[Served] = deque()
        self._server: Server | None = None
        self._answer: Answer | None = None
        self._stopped: Stop | None = None

    @property
    def meta_bytes(self) -> int:
        """Header bytes handed to the real transport so far."""
        return self._wire.meta_bytes

    @property
    def refused(self) -> Counter[str]:
        """Arrived frames that were refused, by reason."""
        return self._wire.refused

    def payload_bytes(self, message: Message) -> int:
        """What ``message`` weighs on the emulated network."""
        return self._payload_bytes(message)

    def foreseen_ns(self, duration_ns: int) -> int:
        """A window lasts what the compute model says."""
        return duration_ns

    def now_ns(self) -> int:
        """This node's present, in emulated nanoseconds since the start."""
        return self._now_ns

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Emulated time passes in ``compute`` and ``wait`` only: nothing to do."""
        yield

    def serve(self, server: Server) -> None:
        """From now on answer requests with ``server``."""
        self._server = server

    def compute(self, work: Callable[[Poll | None], T], duration_ns: int) -> tuple[T, list[Message]]:
        """Run ``work``; ``duration_ns`` of emulated time have passed then."""
        end_ns = self._now_ns + duration_ns
        ahead = self._promised_ns < end_ns
        if ahead:  # others need not wait for what this node does until then
            self._speak(wake_ns=end_ns, tag=COMPUTING)
        result = work(None if self._eager and self._server is None else self._poll)
        self._now_ns = end_ns
        if ahead or self._server is not None:
            if not ahead:
                self._speak(wake_ns=end_ns, tag=COMPUTING)
            return result, self._hear(lambda: "the end of its compute window")
        return result, []

    def put(
        self, outgoing: Sequence[Outgoing], *, role: Role, flush: bool = False, at_ns: int | None = None
    ) -> None:
        """Queue ``outgoing`` at ``at_ns`` (default now)."""
        when_ns = self._now_ns if at_ns is None else at_ns
        if when_ns < self._promised_ns:
            raise RunFailed(
                f"node {self._node} puts messages into its queue at {when_ns / NS_PER_S:.6f} s, after it "
                f"collected those of this round; an algorithm must fill its queue before it collects"
            )
        if when_ns < (latest_ns := max(self._now_ns, self._last_put_ns)):
            raise RunFailed(
                f"node {self._node} puts messages into its queue at {when_ns / NS_PER_S:.6f} s, expected not "
                f"before {latest_ns / NS_PER_S:.6f} s; queue what is sooner first"
            )
        self._last_put_ns = when_ns
        if flush:
            self._flush = (when_ns, self._sequence)
        items, numbered = [], []
        for destination, message in outgoing:
            sequence = self._sequence
            self._sequence += 1
            tag = -2 - sequence if role is Role.REQUEST else message.round
            nbytes = self._payload_bytes(message)
            items.append(Item(destination, nbytes, sequence, tag, message.fragment, role))
            numbered.append((destination, message._replace(sequence=sequence)))
        self._puts.append(Put(when_ns, flush, items))
        if self._eager:
            self._push(numbered)
        else:
            for entry in numbered:
                self._outbox.put(entry[1].sequence, entry)

    def request(self, destination: int, message: Message) -> int:
        """Queue a request; returns the tag of its answer."""
        tag = -2 - self._sequence
        self.put([(destination, message)], role=Role.REQUEST)
        return tag

    def collect(self, then_ns: int) -> list[Message]:
        """All messages that have arrived by now."""
        self._speak(wake_ns=self._now_ns, then_ns=then_ns)
        return self._hear(lambda: "what has arrived by its present")

    def wait(
        self, *, tag: int, count: int, until_ns: int, then_ns: int, what: Callable[[], str]
    ) -> list[Message]:
        """Block until ``count`` messages tagged ``tag`` have arrived or it is ``until_ns``."""
        until_ns = max(until_ns, self._now_ns)
        self._speak(wake_ns=until_ns, tag=tag, count=count, then_ns=then_ns)
        return self._hear(what)

    def observe(self, message: Message) -> None:
        """Hand a snapshot to the observer."""
        self._wire.observe(message)

    def leave(self, *, drop: bool) -> None:
        """This node's rounds are over."""
        if self._puts:
            self._speak(wake_ns=self._now_ns)
            self._hear(lambda: "the last answer")
        self._wire.leave(self._node, self._now_ns, drop)
        self._inbox.close()

    def linger(self) -> None:
        """Go on serving until every node has left."""
        while self._stopped is None:
            # The others may be rounds behind; whether they live, the supervisor sees.
            self._next(lambda: "the end of the other nodes", patient=True)
            self._serve(wait=False)
        self._serve(wait=True)
        self._now_ns = self._stopped.at_ns if self._server is not None else self._now_ns
        self.totals = self._stopped.totals

    def _speak(self, *, wake_ns: int, tag: int = ANY, count: int = 0, then_ns: int = 0) -> None:
        puts, self._puts = self._puts, []
        self._then_ns, self._wake_ns = then_ns, wake_ns
        self._wire.speak(Speech(self._node, self._now_ns, puts, tag, count, wake_ns, then_ns))

    def _hear(self, what: Callable[[], str]) -> list[Message]:
        while self._answer is None:
            self._next(what)
            self._serve(wait=False)
        answer, self._answer = self._answer, None
        self._serve(wait=True)
        self._now_ns = answer.at_ns
        self.interrupted = not answer.complete and answer.at_ns < self._wake_ns
        rests = answer.at_ns < self._limit_ns and not self.interrupted
        self._promised_ns = answer.at_ns + (self._then_ns if rests else 0)
        self.totals = answer.totals
        if self._flush[0] <= answer.at_ns:
            self._outbox.forget(before=self._flush[1])
        payloads = [self._payload(sender, sequence) for sender, sequence in answer.arrived]
        return [each for each in payloads if each is not None]

    def _poll(self) -> None:
        while (heard := self._wire.next(False, str)) is not None:
            self._take(heard)
        self._serve(wait=False)

    def _take(self, heard: Heard | None) -> None:
        if heard is None:
            return
        if isinstance(heard, list):
            self._inbox.put(heard)
            return
        if isinstance(heard, Gone):
            self.losses.add(heard.peer, heard.at_ns, self._wire.lost(heard.peer))
            return
        if isinstance(heard, Answer):
            self._answer = heard
        elif isinstance(heard, Stop):
            self._stopped = heard
        self._unserved.extend(heard.served)
        self._start(heard.started)

    def _start(self, started: Sequence[int]) -> None:
        """Push the payloads of ``started``; an answer that is not made yet follows when it is."""
        ready = []
        for sequence in started:
            entry = (self._outbox if sequence >= 0 else self._replies).take(sequence)
            if entry is None:
                self._owed.add(sequence)
            else:
                ready.append(entry)
        if ready:
            self._push(ready)

    def _push(self, outgoing: Sequence[Outgoing]) -> None:
        if self.losses:
            outgoing = [each for each in outgoing if each[0] not in self.losses]
        self._wire.push(outgoing)

    def _serve(self, *, wait: bool) -> None:
        """Answer requests in their order, as far as their payloads are here, or all known now.

        What is announced while this waits for a payload lies after the node's present and is left for later.
        """
        for _ in range(len(self._unserved)):
            requester, request, reply, ping = self._unserved[0]
            here = ping or self._inbox.has(requester, request)
            if not here and not wait and not self.losses.silent(requester):
                return
            message = None if ping else self._payload(requester, request)
            self._unserved.popleft()
            if message is None and not ping:  # nor is its requester there to be answered
                self._owed.discard(reply)
                continue
            if self._server is None:
                raise RunFailed(f"node {self._node} got a request of node {requester} but serves none")
            answer = self._server(requester, message)._replace(sequence=reply)
            self._replies.put(reply, (requester, answer))
            if reply in self._owed:
                self._owed.remove(reply)
                self._start([reply])

    def _payload(self, sender: int, sequence: int) -> Message | None:
        """The payload of a message that has arrived, once it is here; None if its sender took it along."""
        while (message := self._inbox.take(sender, sequence)) is None:
            what = f"the payload of message {sequence} of node {sender}"
            silent = self.losses.silent(sender)  # what it sent may still lie here unread
            if not self._next(what.__str__, block=not silent) and silent:
                self.missed += 1
                return None
        return message

    def _next(self, what: Callable[[], str], *, block: bool = True, patient: bool = False) -> bool:
        """Whether something was heard; blocks until then or until the grace of a lost peer is over."""
        within_s = self.losses.grace_s() if self.losses else None
        heard = self._wire.next(block, what, patient=patient, within_s=within_s)
        self._take(heard)
        return heard is not None
