"""Who may act when: conservative virtual time for all nodes of a run, as a pure state machine without I/O.

Nodes run ahead in real time; emulated time advances only as far as no node can still act before it. A node
tells in one ``Speech`` per local round what it puts into its queue and when, when it wants an answer, and for
how long it will do nothing after that answer (its next compute window). The last is its promise: events
before the smallest promise of all nodes are final. A node that waits for a message promises nothing; its
wake-up is discovered when the message arrives, and its promise then starts from there.

Order at one instant t: 0 arrivals of transfers that ended before t; 1 answers; 2 what nodes put into their
queues; 3 ends of transfers; 4 wake-ups by a message whose transfer ended at t (latency 0). So a message has
arrived by t exactly if its transfer ended before t and end + latency <= t, and what somebody puts at t can
neither be seen nor prevented by anything else at t, in whatever order nodes speak.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from decentral.clock import NS_PER_S
from decentral.errors import Deadlock, RunFailed
from decentral.network.ledger import Ledger
from decentral.network.links import Arrival, Item, Links
from decentral.network.model import INFINITE_NS
from decentral.speech import ANY, Answer, Notice, Put, Role, Served, Speech, Stop, Telling, Totals

_ANSWER, _PUT, _WAKE = 1, 2, 4
_CHECK, _DUE, _WOKEN = 0, 1, 2
_SHOWN = 20
"""Nodes listed in the message of a deadlock."""


@dataclass(slots=True)
class _Node:
    """What is known of one node."""

    promise_ns: int
    eager: bool
    version: int = 0
    speech: Speech | None = None
    waiting: bool = False
    left: bool = False


class Timekeeper:
    """Emulated time and network of one run.

    Args:
        links: the emulated network.
        ledger: its accounts.
        eager: per node, whether it sends payloads when it puts them (synchronous algorithms, which lose none)
            instead of when their transfers start.
        limit_ns: a node that is answered at or after this time has no further compute window.
    """

    def __init__(
        self, links: Links, ledger: Ledger, *, eager: Sequence[bool], limit_ns: int = INFINITE_NS
    ) -> None:
        n = len(eager)
        self._links = links
        self._ledger = ledger
        self._limit_ns = limit_ns
        self._nodes = [_Node(0, each) for each in eager]
        self._frontier_ns = 0
        self._stale_frontier = False
        self._agenda: list[tuple[int, int, int, int, int]] = []
        self._puts: dict[int, Put] = {}
        self._put_number = 0
        self._end_ns = 0
        self._staying = n
        self._over = False
        self._arrived: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        self._counts: list[dict[int, int]] = [{} for _ in range(n)]
        self._mailbox: list[dict[tuple[int, int], int]] = [{} for _ in range(n)]
        self._served: list[list[Served]] = [[] for _ in range(n)]
        self._replies = [0] * n
        self._tellings: list[Telling] = []
        self._needed: set[int] = set()

    @property
    def over(self) -> bool:
        """True once every node has left and ``Stop`` has been told to all."""
        return self._over

    @property
    def now_ns(self) -> int:
        """How far emulated time is final."""
        return self._end_ns if self._over else min(self._frontier_ns, INFINITE_NS)

    def hello(self, node: int, first_ns: int) -> None:
        """Before anything else: ``node`` will do nothing before ``first_ns``."""
        self._promise(self._nodes[node], first_ns)

    def speak(self, speech: Speech) -> None:
        """Take in what a node tells; ``advance`` then says what follows.

        Raises:
            RunFailed: it breaks its promise.
        """
        number, at_ns = speech.node, speech.at_ns
        node = self._nodes[number]
        if node.speech is not None or node.left or at_ns < node.promise_ns:
            raise RunFailed(
                f"node {number} acts at {at_ns / NS_PER_S:.6f} s though it promised to do nothing before "
                f"{node.promise_ns / NS_PER_S:.6f} s: an algorithm fills its queue before it collects "
                f"messages, once per local round"
            )
        node.version += 1
        node.speech = speech
        for put in speech.puts:
            self._put_number += 1
            self._puts[self._put_number] = put
            heapq.heappush(self._agenda, (put.at_ns, _PUT, number, self._put_number, 0))
        if speech.count:
            self._promise(node, at_ns)
            self._schedule(at_ns, _ANSWER, number, _CHECK)
        else:
            self._schedule(speech.wake_ns, _ANSWER, number, _DUE)
            self._promise(node, self._after(speech.wake_ns, speech.then_ns))

    def leave(self, node: int, at_ns: int, *, drop: bool) -> None:
        """``node`` has ended its rounds; it goes on serving. ``drop`` empties its queue now."""
        it = self._nodes[node]
        if at_ns < it.promise_ns:
            raise RunFailed(f"node {node} leaves at {at_ns} ns, before what it promised: {it.promise_ns} ns")
        it.left = True
        it.version += 1
        self._staying -= 1
        self._end_ns = max(self._end_ns, at_ns)
        if drop:
            self._put_number += 1
            heapq.heappush(self._agenda, (at_ns, _PUT, node, self._put_number, 0))
        self._promise(it, INFINITE_NS)

    def advance(self) -> list[Telling]:
        """Let time pass as far as the promises allow; returns what nodes are to be told, in order.

        Raises:
            Deadlock: every node waits for messages, and none is under way.
        """
        links, agenda = self._links, self._agenda
        while not self._over:
            if self._stale_frontier:
                self._frontier_ns = min(node.promise_ns for node in self._nodes)
                self._stale_frontier = False
            frontier_ns = self._frontier_ns if self._staying else self._end_ns + 1
            link_ns, link_class = links.next_event()
            ours = bool(agenda) and (agenda[0][0], agenda[0][1]) < (link_ns, link_class)
            at_ns, class_ = (agenda[0][0], agenda[0][1]) if ours else (link_ns, link_class)
            if at_ns > frontier_ns or (at_ns == frontier_ns and class_ >= _PUT) or at_ns >= INFINITE_NS:
                if not self._staying:
                    self._stop()
                elif at_ns >= INFINITE_NS <= frontier_ns:
                    raise Deadlock(self._deadlock_text())
                break
            if ours:
                self._act(*heapq.heappop(agenda))
                continue
            for arrival in links.step():
                self._arrive(arrival, link_class)
        return self._told()

    def _act(self, at_ns: int, class_: int, number: int, detail: int, what: int) -> None:
        if class_ == _PUT:
            put = self._puts.pop(detail, None)
            if put is None:
                self._links.stop(at_ns, number)
            else:
                self._links.put(at_ns, number, put.items, flush=put.flush)
            return
        node = self._nodes[number]
        speech = node.speech
        if detail != node.version or speech is None:
            return
        if what == _CHECK and self._counts[number].get(speech.tag, 0) < speech.count:
            node.waiting = True
            self._promise(node, INFINITE_NS)
            if speech.wake_ns < INFINITE_NS:
                self._schedule(max(speech.wake_ns, at_ns), _ANSWER, number, _DUE)
            return
        self._answer(number, node, speech, at_ns)

    def _arrive(self, arrival: Arrival, class_: int) -> None:
        at_ns, sender, item = arrival
        number = item.destination
        role = item.role
        if role == Role.REQUEST or role == Role.PING:
            self._serve(at_ns, sender, item)
        if role == Role.REQUEST:
            return
        self._arrived[number].append((sender, item.sequence))
        counts = self._counts[number]
        tag = item.tag
        if role == Role.LATEST or role == Role.PING:
            tag = ANY
            mailbox = self._mailbox[number]
            key = (sender, item.fragment)
            replaced = mailbox.get(key)
            if replaced is not None:
                self._ledger.replace(sender, number, replaced)
            mailbox[key] = item.nbytes
        counts[tag] = counts.get(tag, 0) + 1
        node = self._nodes[number]
        if node.waiting:
            speech = node.speech
            assert speech is not None
            if counts.get(speech.tag, 0) >= speech.count:
                # Its promise stays open until the answer, which is the next thing that happens to it.
                node.waiting = False
                node.version += 1
                self._schedule(at_ns, _ANSWER if class_ == 0 else _WAKE, number, _WOKEN)

    def _serve(self, at_ns: int, requester: int, item: Item) -> None:
        server = item.destination
        self._replies[server] += 1
        reply = -self._replies[server]
        ping = item.role == Role.PING
        self._served[server].append(Served(requester, item.sequence, reply, ping))
        role = Role.LATEST if ping else Role.REPLY
        answer = Item(requester, item.nbytes, reply, item.tag, item.fragment, role)
        self._links.put(at_ns, server, [answer], flush=False)

    def _answer(self, number: int, node: _Node, speech: Speech, at_ns: int) -> None:
        counts = self._counts[number]
        complete = counts.get(speech.tag, 0) >= speech.count
        counts.pop(ANY, None)
        if complete:
            counts.pop(speech.tag, None)
        node.waiting = False
        node.version += 1
        node.speech = None
        self._promise(node, self._after(at_ns, speech.then_ns))
        arrived, self._arrived[number] = self._arrived[number], []
        self._mailbox[number].clear()
        served, started = self._take(number)
        self._tellings.append(Answer(number, at_ns, complete, arrived, served, started, self._totals(number)))
        for sender, sequence in arrived:
            if not self._nodes[sender].eager or sequence < 0:
                self._needed.add(sender)
        self._needed.update(each.requester for each in served)

    def _take(self, number: int) -> tuple[list[Served], list[int]]:
        served, self._served[number] = self._served[number], []
        started = self._links.started.pop(number, [])
        return served, [] if self._nodes[number].eager else started

    def _told(self) -> list[Telling]:
        """What accumulated, and notices to those whose payloads it needs, and whose payloads those need."""
        needed, self._needed = self._needed, set()
        while needed:
            number = min(needed)
            needed.remove(number)
            served, started = self._take(number)
            if served or started:
                self._tellings.append(Notice(number, served, started))
                needed.update(each.requester for each in served)
        tellings, self._tellings = self._tellings, []
        return tellings

    def _stop(self) -> None:
        self._over = True
        self._links.close(self._end_ns)
        last = [self._take(number) for number in range(len(self._nodes))]
        asking = {each.requester for served, _ in last for each in served}
        for number, (served, started) in enumerate(last):
            pushed = started if number in asking else []
            self._tellings.append(Stop(number, self._end_ns, served, pushed, self._totals(number)))

    def _totals(self, number: int) -> Totals:
        links = self._links
        return Totals(
            links.sent[number], links.sent_bytes[number], links.dropped[number], links.dropped_bytes[number]
        )

    def _after(self, at_ns: int, then_ns: int) -> int:
        return at_ns if at_ns >= self._limit_ns else at_ns + then_ns

    def _schedule(self, at_ns: int, class_: int, number: int, what: int) -> None:
        heapq.heappush(self._agenda, (at_ns, class_, number, self._nodes[number].version, what))

    def _promise(self, node: _Node, promise_ns: int) -> None:
        if node.promise_ns == self._frontier_ns:
            self._stale_frontier = True
        node.promise_ns = promise_ns
        self._frontier_ns = min(self._frontier_ns, promise_ns)

    def _deadlock_text(self) -> str:
        stuck = [
            (number, node.speech) for number, node in enumerate(self._nodes) if node.speech and not node.left
        ]
        shown = [
            f"  node {number} waits since {speech.at_ns / NS_PER_S:.6f} s for "
            f"{speech.count - self._counts[number].get(speech.tag, 0)} more "
            + ("messages" if speech.tag == ANY else f"messages tagged {speech.tag}")
            for number, speech in stuck
        ]
        head = f"deadlock: {len(stuck)} nodes wait for messages and none is under way"
        rest = [f"  and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        return "\n".join([head, *shown[:_SHOWN], *rest])
