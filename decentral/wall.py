"""Real time: one process per node, links paced in user space as the network model says.

Sends are paced and delayed by the sender, shared downlinks paced by the receiver (``decentral.downlink``).
Processes share a clock: the monotonic one of a host, with an offset for every further host. How well it went
is told by ``report`` and judged by ``decentral.fidelity``.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from decentral.accounts import sent_account
from decentral.clock import NS_PER_S, WallClock
from decentral.downlink import Downlink
from decentral.errors import RunFailed
from decentral.fidelity import cpu_times, node_account
from decentral.losses import Losses, Patience
from decentral.mailbox import Mailbox
from decentral.medium import Outgoing, Poll, Server
from decentral.messages import Kind, Message
from decentral.network.model import INFINITE_NS, NetworkModel, Transfer
from decentral.pacing import Entry, Pacer
from decentral.speech import Role, Totals
from decentral.transports.paced import Sender
from decentral.transports.receiving import Orders, Receiver
from decentral.transports.zeromq import ZmqTransport

T = TypeVar("T")

SWITCH_INTERVAL_S = 0.0005
"""How long Python code of the node's thread may keep the links' threads waiting; Python's own 5 ms would be
more than the lateness that is trusted."""


class WallMedium:
    """A ``Medium`` in real time; its verbs are the node's thread's.

    ``start`` it after the fork and the start barrier; ``close`` it, whatever happens, before the transport.

    Args:
        node: its id.
        observer: the observer's number.
        model: the network.
        transport: the node's sockets.
        by_round: messages are waited for by their round (synchronous algorithms).
        batch_bytes: most payload that travels together.
        timeout_s: liveness timeout of a wait.
        left: called when this node's rounds are over.
        orders: where the launcher tells that nodes have ended, and that all others have left. None: a node
            that serves does not wait for them.
        patience_ns: for how long a node that has ended is still waited for.
        trace: hears, in the sending thread, of every transfer that ended or was cut.
        clock_offset_ns: to be added to this host's monotonic clock to get the one that all hosts share.
    """

    def __init__(
        self,
        *,
        node: int,
        observer: int,
        model: NetworkModel,
        transport: ZmqTransport,
        by_round: bool,
        batch_bytes: int,
        timeout_s: float | None,
        left: Callable[[], None] = lambda: None,
        orders: Orders | None = None,
        patience_ns: int = 0,
        trace: Callable[[Transfer], None] | None = None,
        clock_offset_ns: int = 0,
    ) -> None:
        self._node = node
        self._observer = observer
        self._model = model
        self._transport = transport
        self._left = left
        self._waits = orders is not None
        self._patience = Patience(patience_ns)
        self._clock = WallClock(clock_offset_ns)
        self._mailbox = Mailbox(node=node, by_round=by_round, timeout_s=timeout_s)
        self._pacer = Pacer(node=node, model=model, trace=trace)
        self._sender = Sender(
            node=node,
            transport=transport,
            clock=self._clock,
            pacer=self._pacer,
            downlink=Downlink(node, model) if model.contention == "both" else None,
            batch_bytes=batch_bytes,
            failed=self._mailbox.fail,
        )
        self._receiver = Receiver(
            node,
            transport=transport,
            clock=self._clock,
            mailbox=self._mailbox,
            sender=self._sender,
            orders=orders,
        )
        self.losses = Losses()
        self.missed = 0
        self.interrupted = False
        self._server: Server | None = None
        self._sequence = 0
        self._answers = 0
        self._closed = False
        self._switch_interval_s = sys.getswitchinterval()
        self._before = self._after = cpu_times()

    def start(self) -> None:
        """The start barrier fell: it is 0 now, and links carry messages."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._before = cpu_times()
        self._clock.start()
        self._sender.start()
        self._receiver.start()

    def close(self) -> None:
        """End the threads and close the accounts: what is queued is dropped. May be called twice.

        The transport is still to be closed.
        """
        if not self._closed:
            self._closed = True
            self._after = cpu_times()
        self._sender.stop()
        self._receiver.stop()
        sys.setswitchinterval(self._switch_interval_s)

    @property
    def totals(self) -> Totals:
        """What this node has sent and lost up to its present."""
        return self._sender.totals()

    @property
    def meta_bytes(self) -> int:
        """Header bytes handed to the real transport so far."""
        return self._sender.meta_bytes

    @property
    def refused(self) -> Counter[str]:
        """Arrived frames that were refused, by reason."""
        return self._transport.refused

    def payload_bytes(self, message: Message) -> int:
        """What ``message`` weighs: what really travels."""
        return message.nbytes

    def foreseen_ns(self, duration_ns: int) -> int:
        """Nobody knows how long a window will last."""
        return 0

    def now_ns(self) -> int:
        """Real time since the start barrier, without what was spent paused."""
        return self._clock.now_ns()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Neither this node's clock nor its transfers go on inside."""
        try:
            with self._clock.paused():
                yield
        finally:
            self._sender.wake()

    def serve(self, server: Server) -> None:
        """From now on answer requests with ``server``: between local steps and while waiting."""
        self._server = server

    def compute(self, work: Callable[[Poll | None], T], duration_ns: int) -> tuple[T, list[Message]]:
        """Run ``work``; it lasts as long as it takes."""
        result = work(None if self._server is None else self._serve)
        self._serve()
        self._give_up()
        return result, self._mailbox.take()

    def put(
        self, outgoing: Sequence[Outgoing], *, role: Role, flush: bool = False, at_ns: int | None = None
    ) -> None:
        """Queue ``outgoing`` at ``at_ns`` (default now)."""
        entries = []
        for destination, message in outgoing:
            sequence = self._sequence
            self._sequence += 1
            kind = Kind.PING if role is Role.PING else message.kind
            entries.append(Entry(destination, message._replace(sequence=sequence, kind=kind), sequence, role))
        self._queue(entries, flush=flush, at_ns=at_ns)

    def request(self, destination: int, message: Message) -> int:
        """Queue a request; returns the tag of its answer."""
        tag = -2 - self._sequence
        self._mailbox.expect(tag)
        self.put([(destination, message)], role=Role.REQUEST)
        return tag

    def collect(self, then_ns: int) -> list[Message]:
        """All messages that have arrived by now."""
        self._serve()
        self._give_up()
        return self._mailbox.take()

    def wait(
        self, *, tag: int, count: int, until_ns: int, then_ns: int, what: Callable[[], str]
    ) -> list[Message]:
        """Block until ``count`` messages tagged ``tag`` have arrived or it is ``until_ns``."""
        while True:
            self.interrupted = self._give_up()
            if self.interrupted:
                return self._mailbox.take()  # the answer to ``tag`` is still awaited
            wake_ns = min(until_ns, self._patience.next_ns())
            left_s = None if wake_ns >= INFINITE_NS else (wake_ns - self.now_ns()) / NS_PER_S
            over = self._mailbox.wait(tag, count, left_s, what, patient=wake_ns < until_ns)
            self._serve()
            if over and (wake_ns == until_ns or self._mailbox.holds(tag, count)):
                break
        return self._mailbox.take(tag)

    def observe(self, message: Message) -> None:
        """Hand a snapshot to the observer; it is not paced."""
        self._sender.order(lambda _: self._sender.observe(self._observer, message))

    def leave(self, *, drop: bool) -> None:
        """This node's rounds are over."""
        if drop:
            self._sender.order(self._pacer.stop)
        self._left()

    def linger(self) -> None:
        """Go on serving until every node has left; returns at once where nothing is served."""
        self._serve()
        while self._server is not None and self._waits and not self._mailbox.await_release():
            self._serve()
        self._give_up()

    def rest(self) -> None:
        """Wait until every node that is not lost has left."""
        self._mailbox.await_rest()

    def report(self) -> dict[str, Any]:
        """What became of this node's messages and how well time was kept; plain values. After ``close``.

        ``node``; ``links``: its row of the ledger, as far as the sender knows; ``received`` and ``replaced``:
        per sender [messages, bytes]; ``busy_s sent_bytes time_s``: of its uplink; ``fidelity``: its account.

        Raises:
            RunFailed: a thread had ended with an error, so what is known is not all.
        """
        self._mailbox.check()
        account = node_account(
            node=self._node,
            model=self._model,
            transfers=self._pacer.transfers,
            lateness_ns=self._pacer.lateness_ns,
            heard=self._mailbox.late_ns,
            before=self._before,
            after=self._after,
        )
        sent = sent_account(self._node, self._pacer)
        return {**sent, **self._mailbox.account(), "time_s": self.now_ns() / NS_PER_S, "fidelity": account}

    def _give_up(self) -> bool:
        """Whether peers were given up just now, as nobody in a real network would know better before.

        From here on nothing of them is taken in, so that what the node leaves out cannot come after all.
        """
        self._patience.begin(self._mailbox.take_ended())
        now_ns = self.now_ns()
        over = self._patience.over(now_ns)
        for peer in over:
            self._mailbox.shut_out(peer)
            self.losses.add(peer, now_ns, 0.0)
        return bool(over)

    def _queue(self, entries: Sequence[Entry], *, flush: bool = False, at_ns: int | None = None) -> None:
        def put(now_ns: int) -> None:
            self._pacer.put(max(now_ns, at_ns or 0), entries, flush=flush)

        self._mailbox.check()
        self._sender.order(put)

    def _serve(self) -> None:
        """Answer the requests that have arrived, in their order."""
        requests = self._mailbox.requests
        while requests:
            request = requests.popleft()
            if self._server is None:
                raise RunFailed(f"node {self._node} got a request of node {request.sender} but serves none")
            ping = request.kind is Kind.PING
            answer = self._server(request.sender, None if ping else request)
            self._answers += 1
            # On the wire an answer bears the tag that its request is known by; for the network it has a
            # number of its own.
            tagged = answer._replace(sequence=-self._answers if ping else -2 - request.sequence)
            role = Role.LATEST if ping else Role.REPLY
            self._queue([Entry(request.sender, tagged, -self._answers, role)])
