"""A node's way to the timekeeper and the other nodes, across processes: one control and one data socket.

Only the node's thread uses either; libzmq's I/O thread moves the bytes. Both are looked at in one place, so a
node that waits for one of them still does what comes over the other.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import ceil, inf
from pathlib import Path
from typing import TypeAlias

import zmq

from decentral.checkpoint import words
from decentral.control import decode_telling, encode_leave, encode_speech, encode_word, split_word
from decentral.errors import Deadlock, StalledError, WireError
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.speech import Speech, Telling
from decentral.transports.addresses import Book
from decentral.transports.batches import grouped
from decentral.transports.zeromq import ZmqTransport, check_ipc_path
from decentral.wire import Heard

Save: TypeAlias = Callable[[words.Save, Sequence[list[Message]]], words.Saved]
GRACE_S = 2.0
"""What a node sent just before it ended may still come for so long, as host and network may be busy."""
TIMEKEEPER = "timekeeper"
"""Name of its socket in the run's folder."""


def timekeeper_address(folder: Path) -> str:
    """Where the timekeeper of a run listens.

    Raises:
        PreflightError: the folder's path is too long for a Unix socket.
    """
    return check_ipc_path(folder / f"{TIMEKEEPER}.sock")


class ZmqWire:
    """A ``decentral.virtual.Wire`` over ZeroMQ.

    Args:
        node: this node's id.
        observer: the observer's number; the timekeeper's is the next.
        transport: carries payloads; its context makes the control socket too. If it listens for members on
            other hosts, ``connect`` is to be called before anything is told.
        folder: where the run's sockets live.
        batch_bytes: most payload that travels together.
        timeout_s: liveness timeout of a wait.
    """

    def __init__(
        self,
        *,
        node: int,
        observer: int,
        transport: ZmqTransport,
        folder: Path,
        batch_bytes: int,
        timeout_s: float,
    ) -> None:
        self._node = node
        self._observer = observer
        self._transport = transport
        self._batch_bytes = batch_bytes
        self._timeout_s = timeout_s
        self.meta_bytes = 0
        self._save: Save | None = None
        self._pending: deque[list[Message]] = deque()
        control = transport.context.socket(zmq.DEALER)
        control.setsockopt(zmq.ROUTING_ID, node.to_bytes(4, "little"))
        control.setsockopt(zmq.SNDHWM, 0)
        control.setsockopt(zmq.RCVHWM, 0)
        self._control = control
        self._timekeeper = observer + 1
        self._address = timekeeper_address(folder)
        if transport.endpoint is None:
            control.connect(self._address)
        self._poller = zmq.Poller()
        self._poller.register(control, zmq.POLLIN)
        self._poller.register(transport.inbox, zmq.POLLIN)

    @property
    def refused(self) -> Counter[str]:
        """Frames refused so far, by reason."""
        return self._transport.refused

    def connect(self, book: Book) -> None:
        """Learn where members on other hosts are, the timekeeper perhaps among them; once, before all else.

        Raises:
            RuntimeError: it has a book already, or members on other hosts and no socket for them.
        """
        self._transport.connect(book)
        if self._transport.endpoint is not None:
            self._transport.dial(self._control, self._timekeeper, self._address)

    def saves(self, save: Save) -> None:
        """Make checkpoints possible; tells the timekeeper that this member can be told something.

        Args:
            save: writes the checkpoint of a number, with what has reached this node and it was not told of.
        """
        self._save = save
        self.greet()

    def greet(self) -> None:
        """Tell the timekeeper that this member can be told something; nodes do so with their first speech."""
        self._control.send(encode_word(words.Present(self._node)))

    def speak(self, speech: Speech) -> None:
        """To the timekeeper."""
        self._control.send_multipart(split_word(encode_speech(speech)))

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        """To the timekeeper."""
        self._control.send(encode_leave(node, at_ns, drop))

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        """Payloads to other nodes."""
        self.meta_bytes += self._transport.send(grouped(outgoing, self._batch_bytes))

    def observe(self, message: Message) -> None:
        """A snapshot to the observer."""
        self._transport.send([(self._observer, [message])])

    def lost(self, peer: int) -> float:
        """Forget what ``peer`` was to be sent."""
        self._transport.disconnect(peer)
        return GRACE_S

    def next(
        self,
        block: bool,
        what: Callable[[], str],
        *,
        patient: bool = False,
        within_s: float | None = None,
    ) -> Heard | None:
        """The next thing heard, the timekeeper's first.

        Raises:
            Deadlock: everybody waits, and nothing is under way.
            StalledError: nothing was heard for the liveness timeout.
        """
        while True:
            if self._told:
                try:
                    word = decode_telling(self._node, self._control.recv())
                except Deadlock as deadlock:
                    raise deadlock.at(self._node, what()) from None
                if not isinstance(word, words.Freeze | words.Save | words.Thaw):
                    return word
                if isinstance(word, words.Freeze):
                    self._stand_still(patient=patient)
            payloads = self._pending.popleft() if self._pending else self._transport.receive_now()
            if payloads is not None:
                return payloads
            if not block:
                return None
            if not self._await(what, patient=patient, within_s=within_s):
                return None

    @property
    def _told(self) -> bool:
        return bool(int(self._control.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _await(self, what: Callable[[], str], *, patient: bool, within_s: float | None = None) -> bool:
        """Whether there is something to be read, as there is sooner or later unless ``within_s`` is over."""
        timeout_s = inf if patient else self._timeout_s
        wait_s = timeout_s if within_s is None else min(within_s, timeout_s)
        soon = wait_s < timeout_s
        ready = self._poller.poll(None if wait_s == inf else ceil(wait_s * 1000))
        if not ready and not soon:
            raise StalledError.after(self._timeout_s, self._node, what())
        return bool(ready)

    def _stand_still(self, *, patient: bool) -> None:
        """Until a checkpoint is made, or given up; what comes meanwhile is heard afterwards.

        Others stand still once they have trained, for which who is ``patient`` waits however long it takes;
        then they save themselves.

        Raises:
            StalledError: the timekeeper told nothing for the liveness timeout.
        """
        frozen = words.Frozen(self._node, self._transport.numbers.sent)
        self._control.send_multipart(split_word(encode_word(frozen)))
        word = self._ordered("all others to stand still for a checkpoint", patient=patient)
        if isinstance(word, words.Save):
            while not self._transport.numbers.has(word.expected):
                payloads = self._transport.receive_now()
                if payloads is not None:
                    self._pending.append(payloads)
                elif self._told:
                    break  # given up
                else:
                    self._await(lambda: "what is on its way when a checkpoint is made", patient=False)
            else:
                assert self._save is not None, "a checkpoint of a member that cannot make any"
                saved = self._save(word, tuple(self._pending))
                self._control.send_multipart(split_word(encode_word(saved)))
            word = self._ordered("a checkpoint that others make", patient=False)
        if not isinstance(word, words.Thaw):
            raise WireError("unexpected", f"node {self._node} stands still and was told {word!r}")

    def _ordered(self, what: str, *, patient: bool) -> Telling | words.Order:
        """What the timekeeper tells next; payloads stay where they are."""
        if not self._control.poll(None if patient else ceil(self._timeout_s * 1000)):
            raise StalledError.after(self._timeout_s, self._node, what)
        return decode_telling(self._node, self._control.recv())
