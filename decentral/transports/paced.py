"""The sending thread of a node in real time, by the clock of the emulated links.

Every socket belongs to this thread or to the receiving one (``decentral.transports.receiving``); the node's
thread only leaves orders and reads its mailbox. All that happens to the queue happens here, in the order of
the stamps that orders got when they were left, so neither a signal nor a refill can find it half done:
nothing that a flush dropped leaves afterwards, and no order is slept through, since orders are taken and the
time is read under one lock.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from decentral.clock import NS_PER_S, WallClock
from decentral.downlink import Downlink, Grant, Offer
from decentral.messages import MAP_HASH_BYTES, Kind, Message
from decentral.network.model import INFINITE_NS
from decentral.pacing import Due, Pacer
from decentral.speech import Totals
from decentral.transports.batches import grouped
from decentral.transports.zeromq import ZmqTransport

Order: TypeAlias = Callable[[int], None]
"""Something for the sending thread to do, given the clock's time when the order was left."""

_NOTHING = np.zeros(1, dtype=np.float32)


class Sender:
    """The sending thread: owns the outgoing sockets, the queue and what is under way.

    Args:
        node: its id.
        transport: the node's sockets.
        clock: the node's; while it is paused, so are the transfers.
        pacer: decides what leaves when.
        downlink: shares this node's downlink, where downlinks are shared.
        batch_bytes: most payload that travels together.
        failed: hears of an error that ended the thread.
    """

    def __init__(
        self,
        *,
        node: int,
        transport: ZmqTransport,
        clock: WallClock,
        pacer: Pacer,
        downlink: Downlink | None,
        batch_bytes: int,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.pacer = pacer
        self.meta_bytes = 0
        self._node = node
        self._transport = transport
        self._clock = clock
        self._downlink = downlink
        self._batch_bytes = batch_bytes
        self._failed = failed
        self._work = threading.Condition()
        self._orders: list[tuple[int, Order]] = []
        self._given = 0
        self._done = 0
        self._totals = Totals(0, 0, 0, 0)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"sender-{node}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def order(self, order: Order) -> int:
        """Have ``order`` done by the thread; never blocks. Returns the time that it is stamped with."""
        with self._work:
            now_ns = self._clock.now_ns()
            self._orders.append((now_ns, order))
            self._given += 1
            self._work.notify_all()
        return now_ns

    def wake(self) -> None:
        """The clock was paused or goes on."""
        with self._work:
            self._work.notify_all()

    def totals(self) -> Totals:
        """Messages and payload bytes transferred and dropped, with every order so far done; blocks for it."""
        with self._work:
            number = self._given
            while self._done < number and self._thread.is_alive():
                self._work.wait()
            return self._totals

    def stop(self) -> None:
        """Do what was ordered, close the accounts and end the thread; blocks. May be called twice."""
        if self._thread.ident is None:
            return
        with self._work:
            self._stopping = True
            self._work.notify_all()
        self._thread.join()

    def tell(self, destination: int, kind: Kind, sequence: int, *, time_ns: int, amount: int = 0) -> None:
        """Send a word on a shared downlink. This thread's."""
        if destination in self.pacer.lost:
            return
        word = Message(
            self._node, 0, 0, _NOTHING, bytes(MAP_HASH_BYTES), time_ns, kind, sequence=sequence, age=amount
        )
        self.meta_bytes += self._transport.send([(destination, [word])])

    def observe(self, destination: int, message: Message) -> None:
        """Send a snapshot at once. This thread's."""
        self._transport.send([(destination, [message])])

    def lose(self, peer: int, at_ns: int) -> None:
        """``peer`` has ended: nothing is handed over to it any more. This thread's order."""
        self._transport.disconnect(peer)
        self.pacer.lose(peer, at_ns)
        if self._downlink is not None:
            self._downlink.lose(peer, self._clock.shared_ns())

    def hear(self, word: Message, real_ns: int, at_ns: int) -> None:
        """A word on a shared downlink came in at ``real_ns`` on the shared clock. This thread's order."""
        sender, sequence = word.sender, word.sequence
        if sender in self.pacer.lost:
            return
        if word.kind is Kind.GRANT:
            self.pacer.grant(sequence, at_ns - (real_ns - word.time_ns), word.age)
        elif self._downlink is not None and word.kind is Kind.OFFER:
            self._downlink.offer(sender, sequence, min(word.time_ns, real_ns), word.age)
        elif self._downlink is not None:
            self._downlink.withdraw(sender, sequence, real_ns)

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self.pacer.close(self._clock.now_ns())
        except Exception as error:  # whatever it is, the node's thread must hear of it
            self._failed(error)
        finally:
            with self._work:
                self._totals = self.pacer.totals
                self._done = self._given
                self._work.notify_all()

    def _turn(self) -> bool:
        """Wait for an order or a deadline and do what is to be done; False at the end."""
        with self._work:
            while not (self._orders or self._stopping):
                idle_s = self._idle_s()
                if idle_s is not None and idle_s <= 0:
                    break
                self._work.wait(idle_s)
            orders, self._orders = self._orders, []
            stopping = self._stopping
            now_ns = self._clock.now_ns()  # under the lock: no later order is stamped earlier
        for at_ns, order in orders:
            order(at_ns)
        self._hand_over(self.pacer.advance(now_ns))
        self._settle_downlinks()
        with self._work:
            self._totals = self.pacer.totals
            self._done += len(orders)
            if orders:
                self._work.notify_all()
        return not stopping

    def _idle_s(self) -> float | None:
        """Seconds until something is due; None: not before an order comes."""
        left_ns = INFINITE_NS
        if self._clock.running:
            left_ns = min(left_ns, self.pacer.next_ns() - self._clock.now_ns())
        if self._downlink is not None:
            left_ns = min(left_ns, self._downlink.next_ns() - self._clock.shared_ns())
        return None if left_ns > INFINITE_NS >> 1 else left_ns / NS_PER_S

    def _hand_over(self, due: Sequence[Due]) -> None:
        for at_ns, together in itertools.groupby(due, lambda each: each.at_ns):
            # When it should have been there, on the clock that sender and receiver share.
            real_ns = self._clock.shared_ns() - (self._clock.now_ns() - at_ns)
            outgoing = [(each.destination, each.message._replace(time_ns=real_ns)) for each in together]
            self.meta_bytes += self._transport.send(grouped(outgoing, self._batch_bytes))

    def _settle_downlinks(self) -> None:
        granted = self.pacer.granted
        if granted is not None and granted.offers:
            offers, granted.offers = granted.offers, []
            for offer in offers:
                self._offer(offer)
        if self._downlink is not None:
            for grant in self._downlink.advance(self._clock.shared_ns()):
                self._grant(grant)

    def _offer(self, offer: Offer) -> None:
        real_ns = self._clock.shared_ns() - (self._clock.now_ns() - offer.start_ns)
        kind = Kind.WITHDRAWAL if offer.nbytes is None else Kind.OFFER
        self.tell(offer.destination, kind, offer.sequence, time_ns=real_ns, amount=offer.nbytes or 0)

    def _grant(self, grant: Grant) -> None:
        self.tell(grant.sender, Kind.GRANT, grant.sequence, time_ns=grant.end_ns, amount=grant.service_ns)
