"""Who may act when: conservative virtual time for all nodes of a run, as a pure state machine without I/O.

Nodes run ahead in real time; emulated time advances only as far as no node can still act before it. A node
tells in one ``Speech`` per local round what it puts into its queue and when, when it wants an answer, and for
how long it will do nothing after that answer (its next compute window). The last is its promise: events
before the smallest promise of all nodes are final. A node that waits for a message promises nothing; its
wake-up is discovered when the message arrives, and its promise then starts from there.

Order at one instant t: 0 arrivals of transfers that ended before t, and lost nodes are given up; 1 answers;
2 what nodes put into their queues; 3 ends of transfers; 4 wake-ups by a message whose transfer ended at t
(latency 0). So a message has arrived by t exactly if its transfer ended before t and end + latency <= t, and
what somebody puts at t can neither be seen nor prevented by anything else at t, in whatever order nodes
speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar, TypeAlias

from decentral.checkpoint.state import Stateful
from decentral.network.ledger import Ledger
from decentral.network.links import Arrival, Item, Links
from decentral.network.model import INFINITE_NS
from decentral.speech import ANY, COMPUTING, Role, Served, Speech, Telling
from decentral.standing import Standing, check_speech, deadlock
from decentral.tellings import Tellings

_GIVE_UP, _ANSWER, _PUT, _WAKE = 0, 1, 2, 4
_NEVER = (INFINITE_NS, 0)
# As plain numbers: looking up a member of an enumeration costs more than all else that its use decides.
_LATEST, _REQUEST, _REPLY, _PING = map(int, (Role.LATEST, Role.REQUEST, Role.REPLY, Role.PING))
_ASKING, _MAIL = (_REQUEST, _PING), (_LATEST, _PING)

_Event: TypeAlias = tuple[Any, ...]
"""(time, class, node, number, what): of ``_PUT``, what is the ``Put``, or None for the end of the queue; of
answers, number is the version of the node's speech, and what is whether it is answered in any case."""


class Timekeeper(Stateful):
    """Emulated time and network of one run. Nothing happens before every node has spoken: the start barrier.

    Args:
        links: the emulated network.
        ledger: its accounts.
        eager: per node, whether it sends payloads when it puts them (synchronous algorithms, which lose none)
            instead of when their transfers start.
        limit_ns: a node that is answered at or after this time has no further compute window.
        patience_ns: for how long others wait for a lost node.
    """

    GIVEN: ClassVar[str] = "_limit_ns _patience_ns"

    def __init__(
        self,
        links: Links,
        ledger: Ledger,
        *,
        eager: Sequence[bool],
        limit_ns: int = INFINITE_NS,
        patience_ns: int = 0,
    ) -> None:
        self._links = links
        self._ledger = ledger
        self._limit_ns = limit_ns
        self._patience_ns = patience_ns
        self._given_up = 0
        self._nodes = [Standing(each) for each in eager]
        self._promises = [(0, number) for number in range(len(eager))]
        self._agenda: list[_Event] = []
        self._order = 0
        self._now_ns = 0
        self._end_ns = 0
        self._staying = len(eager)
        self._over = False
        self._tellings = Tellings(links, self._nodes)

    @property
    def over(self) -> bool:
        """True once every node has left and ``Stop`` has been told to all."""
        return self._over

    @property
    def staying(self) -> int:
        """Number of nodes that have not left."""
        return self._staying

    @property
    def all_told(self) -> bool:
        """True while every node that stays has told something that is not answered."""
        return all(node.left or node.speech is not None for node in self._nodes)

    @property
    def now_ns(self) -> int:
        """How far emulated time has come: the latest event that was processed, or the end of the run."""
        return self._end_ns if self._over else self._now_ns

    def speak(self, speech: Speech) -> None:
        """Take in what a node tells; ``advance`` then says what follows.

        Raises:
            RunFailed: it breaks its promise, or what it tells is in no order of time.
        """
        number, at_ns, puts, _, count, wake_ns, then_ns = speech
        node = self._nodes[number]
        if node.lost:
            return
        node.check(number, "speaks", at_ns)
        check_speech(speech)
        for put in puts:
            self._order += 1
            heappush(self._agenda, (put.at_ns, _PUT, number, self._order, put))
        node.version += 1
        node.speech = speech
        if count:
            self._promise(number, node, at_ns)
            heappush(self._agenda, (at_ns, _ANSWER, number, node.version, False))
        else:
            heappush(self._agenda, (wake_ns, _ANSWER, number, node.version, True))
            self._promise(number, node, self._after(wake_ns, then_ns))

    def leave(self, number: int, at_ns: int, *, drop: bool) -> None:
        """Node ``number`` has ended its rounds; it goes on serving. ``drop`` empties its queue now.

        Raises:
            RunFailed: it breaks its promise.
        """
        node = self._nodes[number]
        if node.lost:
            return
        node.check(number, "leaves", at_ns)
        node.forget()
        self._staying -= 1
        self._end_ns = max(self._end_ns, at_ns)
        if drop:
            self._order += 1
            heappush(self._agenda, (at_ns, _PUT, number, self._order, None))
        self._promise(number, node, INFINITE_NS)

    def lose(self, number: int) -> int:
        """Node ``number`` has ended; what it told and others have not seen is void. Returns the time of it.

        What is on its way to it still uses the links and arrives at nobody. Those who wait for messages are
        answered ``patience_ns`` later, so that they can go on without it.
        """
        node, now_ns = self._nodes[number], self.now_ns
        if node.lost:
            return now_ns
        self._staying -= not node.left
        node.lost = True
        node.forget()
        node.served = []
        self._agenda[:] = [event for event in self._agenda if event[2] != number or event[1] == _GIVE_UP]
        heapify(self._agenda)
        self._promise(number, node, INFINITE_NS)
        until_ns = now_ns + self._patience_ns
        self._tellings.gone(number, until_ns)
        if not self._over:
            self._end_ns = max(self._end_ns, now_ns)
            self._links.lose(now_ns, number)
            heappush(self._agenda, (until_ns, _GIVE_UP, number, 0, None))
        return now_ns

    def advance(self) -> list[Telling]:
        """Let time pass as far as the promises allow; returns what nodes are to be told, in order.

        Raises:
            Deadlock: every node waits for messages, and none is under way.
        """
        if self._over:
            return self._tellings.all()
        agenda, next_event, step = self._agenda, self._links.next_event, self._links.step
        final = self._final()
        while True:
            event: _Event = next_event()
            ours = bool(agenda) and agenda[0] < event
            if ours:
                event = agenda[0]
            if event >= final:
                break
            self._now_ns = event[0]
            if ours:
                self._act(*heappop(agenda))
                final = self._final()
            else:
                for arrival in step():
                    self._arrive(arrival, event[1])
        if not self._staying:
            self._over = True
            self._links.close(self._end_ns)
            self._tellings.stop(self._end_ns)
        elif final is _NEVER:
            raise deadlock(self._nodes)
        return self._tellings.all()

    def _final(self) -> tuple[int, int]:
        """Events before this (time, class) are final."""
        if not self._staying:
            return self._end_ns + 1, 0
        promises, nodes = self._promises, self._nodes
        while promises and nodes[promises[0][1]].promise_ns != promises[0][0]:
            heappop(promises)
        # At the instant of a promise, its node can still put, so others can be answered but not more.
        return (promises[0][0], _PUT) if promises else _NEVER

    def _act(self, at_ns: int, class_: int, number: int, order: int, what: Any) -> None:
        if class_ == _PUT:
            if what is None:
                self._links.stop(at_ns, number)
            else:
                self._links.put(at_ns, number, what.items, flush=what.flush)
            return
        if class_ == _GIVE_UP:
            self._give_up(at_ns)
            return
        node = self._nodes[number]
        speech = node.speech
        if order != node.version or speech is None:
            return
        enough = node.counts.get(speech.tag, 0) >= speech.needed
        if what or enough or at_ns >= speech.wake_ns or node.aware < self._given_up:
            self._answer(number, node, speech, at_ns)
            return
        node.waiting = True
        self._promise(number, node, INFINITE_NS)
        if speech.wake_ns < INFINITE_NS:
            heappush(self._agenda, (speech.wake_ns, _ANSWER, number, order, True))

    def _give_up(self, at_ns: int) -> None:
        """A lost node is given up: who waits may have waited for it."""
        self._given_up += 1
        for number, node in enumerate(self._nodes):
            if node.waiting and node.speech is not None:
                self._answer(number, node, node.speech, at_ns)

    def _arrive(self, arrival: Arrival, class_: int) -> None:
        at_ns, sender, item = arrival
        number, nbytes, sequence, tag, fragment, role = item
        node = self._nodes[number]
        if node.lost:
            self._ledger.at_nobody(sender, number, nbytes)
            return
        if role in _ASKING:
            self._serve(at_ns, sender, item)
        if role == _REQUEST or node.left:
            return
        node.arrived.append((sender, sequence))
        if role in _MAIL:
            tag = ANY
            mailbox = node.mailbox
            key = (sender, fragment)
            if key in mailbox:
                self._ledger.replace(sender, number, mailbox[key])
            mailbox[key] = nbytes
        counts = node.counts
        counts[tag] = counts.get(tag, 0) + 1
        if node.waiting:
            speech = node.speech
            assert speech is not None
            if counts.get(speech.tag, 0) >= speech.needed:
                # Its promise stays open until the answer, which is the next thing that happens to it.
                node.waiting = False
                node.version += 1
                heappush(self._agenda, (at_ns, _WAKE if class_ else _ANSWER, number, node.version, True))

    def _serve(self, at_ns: int, requester: int, item: Item) -> None:
        server = self._nodes[item.destination]
        server.replies += 1
        reply = -server.replies
        ping = item.role == _PING
        server.served.append(Served(requester, item.sequence, reply, ping))
        role = _LATEST if ping else _REPLY
        answer = Item(requester, item.nbytes, reply, item.tag, item.fragment, role)
        self._links.put(at_ns, item.destination, [answer], flush=False)

    def _answer(self, number: int, node: Standing, speech: Speech, at_ns: int) -> None:
        complete = node.counts.get(speech.tag, 0) >= speech.needed
        node.counts.clear()
        node.waiting = False
        node.version += 1
        node.speech = None
        node.aware = self._given_up
        interrupted = not complete and at_ns < speech.wake_ns
        self._promise(number, node, at_ns if interrupted else self._after(at_ns, speech.then_ns))
        arrived, node.arrived = node.arrived, []
        if speech.tag != COMPUTING:
            node.mailbox.clear()
        self._tellings.answer(number, at_ns, complete, arrived)

    def _after(self, at_ns: int, then_ns: int) -> int:
        return at_ns if at_ns >= self._limit_ns else at_ns + then_ns

    def _promise(self, number: int, node: Standing, promise_ns: int) -> None:
        node.promise_ns = promise_ns
        if promise_ns < INFINITE_NS:
            heappush(self._promises, (promise_ns, number))
