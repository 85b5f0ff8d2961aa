"""A node's memory of its last local round: its state at the top of it, and what it has heard since.

An algorithm is a straight-line loop, so where it stands is on Python's stack, which no file can hold. Instead
a resumed node runs its algorithm anew: ``Node.rounds`` goes on at the saved round with the saved state, and
the part of the round that was over is repeated. The wire then gives what was heard, each thing no sooner than
the node has told as much as it had then, and swallows what the node told, pushed and showed before. What a
node does is determined by what it hears, whatever the real timing, so it comes to stand where it stood, and
there it hears what is new. Whoever tells something else than before is not determined, and is refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from decentral.checkpoint.state import snapshot
from decentral.control import encode_leave, encode_speech
from decentral.errors import RunFailed
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.speech import Speech
from decentral.wire import Heard, Wire

_Word: TypeAlias = Speech | tuple[int, int, bool] | bytes
"""What was told to the timekeeper, or the digest of it."""


class Part(Protocol):
    """A part of a node that has a state."""

    def state(self) -> dict[str, Any]:
        """A copy of it."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what ``state`` gave."""
        ...


class Memory:
    """A ``Wire`` that remembers, around the real one.

    Args:
        node: its id.
        wire: to the others.
        saved: what ``save`` gave in the run that is resumed.
    """

    def __init__(
        self,
        node: int,
        wire: Wire,
        *,
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        self._node = node
        self._wire = wire
        self._saved = saved
        self._parts: dict[str, Part] = {}
        self._state: dict[str, Any] | None = None
        self._lingers = False
        self._words: list[_Word] = []
        self._told = 0
        self._heard: list[tuple[int, Heard]] = []
        self._read = 0
        self._pushed: set[int] = set()
        self._repeated: set[int] = set()
        self._shown = 0
        self._swallow = 0
        self._meta_bytes = 0
        self._refused: Counter[str] = Counter()

    @property
    def meta_bytes(self) -> int:
        """Header bytes sent so far, those before the checkpoint too."""
        return self._meta_bytes + self._wire.meta_bytes

    @property
    def refused(self) -> Counter[str]:
        """Frames refused so far, likewise."""
        return self._refused + self._wire.refused

    # What its node says of itself

    def ties(self, **parts: Part) -> None:
        """``parts`` are the node: their states are asked for at a boundary, or while it lingers."""
        self._parts = parts

    def resume(self) -> bool:
        """Before the first round: restore what was saved, if something was, and begin to repeat the round.

        Returns:
            Whether the node's rounds were over then: it was serving others.
        """
        saved, self._saved = self._saved, None
        if saved is None:
            return False
        self._state = dict(saved["state"])
        self._lingers = saved["lingers"]
        self._words = list(saved["words"])
        self._heard = [(after, heard) for after, heard in saved["heard"]]
        self._pushed, self._repeated = set(saved["pushed"]), set(saved["pushed"])
        self._shown = self._swallow = saved["shown"]
        self._meta_bytes = saved["meta_bytes"]
        self._refused = Counter(saved["refused"])
        for name, state in snapshot(self._state).items():
            self._parts[name].restore(state)
        return self._lingers

    @property
    def resuming(self) -> bool:
        """Whether ``resume`` will restore something."""
        return self._saved is not None

    def kept(self, first: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the algorithm had kept, as it is to be restored; ``first`` in a run that is not resumed.

        Raises:
            RunFailed: it kept other things.
        """
        kept: Mapping[str, Any] = first if self._saved is None else self._saved["state"]["node"]["kept"]
        if kept.keys() != first.keys():
            raise RunFailed(
                f"node {self._node} was resumed and keeps {', '.join(first)}: its checkpoint has "
                f"{', '.join(kept)}; resume with the algorithm that wrote it"
            )
        return {name: snapshot(value) for name, value in kept.items()}

    def boundary(self) -> None:
        """The node is at the top of a round: all that it needs is in its attributes.

        Raises:
            RunFailed: it has told something before its first round.
        """
        if self._state is None and self._told:
            raise RunFailed(
                f"node {self._node} told others something before node.rounds(): with checkpoints an "
                f"algorithm begins its rounds first; move it into the first round, or remove the checkpoint "
                f"table"
            )
        if self._repeating:
            raise self._otherwise("finished a round that it had not finished")
        self._state = self._states()
        self._forget()

    def lingers(self) -> None:
        """The node's rounds are over; from now on its state is complete whenever it hears something."""
        self._lingers = True
        unread = self._heard[self._read :]
        self._words, self._told = [], 0
        self._heard, self._read = [(0, heard) for _, heard in unread], 0

    def save(self, pending: Sequence[Heard] = ()) -> dict[str, Any]:
        """What ``resume`` needs, in a run in which nothing is on its way.

        Args:
            pending: has reached this node, which was not told of it yet.
        """
        if self._saved is not None:  # the node has not begun to repeat what it did
            told = len(self._saved["words"])
            return {**self._saved, "heard": [*self._saved["heard"], *((told, each) for each in pending)]}
        lingers = self._lingers
        heard = self._heard[self._read :] if lingers else self._heard
        return {
            "state": self._states() if lingers else self._state,
            "lingers": lingers,
            "words": [_digest(word) for word in self._words],
            "heard": [*heard, *((len(self._words), each) for each in pending)],
            "pushed": sorted(self._repeated if lingers else self._pushed),
            "shown": self._swallow if lingers else self._shown,
            "meta_bytes": self.meta_bytes,
            "refused": dict(self.refused),
        }

    # The wire

    def speak(self, speech: Speech) -> None:
        """To the timekeeper, unless it has been told before."""
        if self._new(speech):
            self._wire.speak(speech)

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        """To the timekeeper, likewise."""
        if self._new((node, at_ns, drop)):
            self._wire.leave(node, at_ns, drop)

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        """Payloads to other nodes, but for those that were pushed before."""
        new = outgoing
        if self._repeated:
            new = [entry for entry in outgoing if entry[1].sequence not in self._repeated]
            self._repeated.difference_update([message.sequence for _, message in outgoing])
        if new:
            if not self._lingers:
                self._pushed.update([message.sequence for _, message in new])
            self._wire.push(new)

    def observe(self, message: Message) -> None:
        """A snapshot to the observer, unless it was shown before."""
        if self._swallow:
            self._swallow -= 1
            return
        self._shown += not self._lingers
        self._wire.observe(message)

    def lost(self, peer: int) -> float:
        """A peer has ended; no checkpoint follows."""
        return self._wire.lost(peer)

    def next(
        self,
        block: bool,
        what: Callable[[], str],
        *,
        patient: bool = False,
        within_s: float | None = None,
    ) -> Heard | None:
        """The next thing heard, what was heard before the checkpoint first."""
        if self._read < len(self._heard):
            after, heard = self._heard[self._read]
            if after <= self._told:
                self._read += 1
                if self._lingers and self._read == len(self._heard):
                    self._heard, self._read = [], 0
                return heard
        if self._repeating:
            if block:
                raise self._otherwise(f"waits for {what()}")
            return None
        new = self._wire.next(block, what, patient=patient, within_s=within_s)
        if new is not None and not self._lingers:
            self._heard.append((self._told, new))
            self._read += 1
        return new

    def _states(self) -> dict[str, Any]:
        return {name: part.state() for name, part in self._parts.items()}

    @property
    def _repeating(self) -> bool:
        return self._told < len(self._words) or self._read < len(self._heard)

    def _new(self, word: Speech | tuple[int, int, bool]) -> bool:
        number = self._told
        if number == len(self._words):
            self._words.append(word)
            self._told += 1
            return True
        self._told += 1
        if _digest(self._words[number]) != _digest(word):
            raise self._otherwise("told others something else than it had told")
        return False

    def _otherwise(self, what: str) -> RunFailed:
        return RunFailed(
            f"node {self._node} was resumed and {what}: its algorithm does not repeat itself; what it "
            f"carries from round to round must be in node.keep(...), and its draws must come from node.rng"
        )

    def _forget(self) -> None:
        self._words, self._told = [], 0
        self._heard, self._read = [], 0
        self._pushed, self._repeated = set(), set()
        self._shown = self._swallow = 0


def _digest(word: _Word) -> bytes:
    if isinstance(word, bytes):
        return word
    data = encode_speech(word) if isinstance(word, Speech) else encode_leave(*word)
    return hashlib.blake2b(data, digest_size=16).digest()
