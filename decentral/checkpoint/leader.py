"""How all members of a run save themselves at one moment: a pure state machine, without I/O.

The timekeeper leads. It answers nobody until every node has told something that it waits on; what nodes still
do then, they do on their own. Then it lets all of them stand still, counts what is on its way, lets them save
themselves, and lets them go on. Emulated time does not notice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from enum import Enum, auto
from typing import TypeAlias

from decentral.checkpoint.words import Freeze, Frozen, Order, Present, Report, Save, Saved, Thaw

Orders: TypeAlias = list[tuple[int, Order]]
"""(member, what it is told)."""


class Phase(Enum):
    """How far a checkpoint is."""

    NONE = auto()
    ASKED = auto()
    FREEZING = auto()
    SAVING = auto()


class Leader:
    """Leads members through one checkpoint after the other.

    Args:
        members: nodes and observer.

    Attributes:
        number: of the checkpoint that is being made, or of the last one.
        saved: what members have saved of it.
    """

    def __init__(self, members: Collection[int]) -> None:
        self.number = 0
        self.saved: dict[int, Saved] = {}
        self._members = sorted(members)
        self._least = 0
        self._absent = set(members)
        self._phase = Phase.NONE
        self._whole = True
        self._frozen: dict[int, Frozen] = {}

    @property
    def all_present(self) -> bool:
        """Whether everybody can be told something; nobody must be before."""
        return not self._absent

    @property
    def holds(self) -> bool:
        """Whether nobody is to be answered now."""
        return self._phase is not Phase.NONE

    @property
    def freezing(self) -> bool:
        """Whether members have been told to stand still."""
        return self._phase in (Phase.FREEZING, Phase.SAVING)

    @property
    def complete(self) -> bool:
        """Whether every member has saved itself; call ``thaw`` then."""
        return self._phase is Phase.SAVING and len(self.saved) == len(self._members)

    def ask(self, number: int, least: int) -> None:
        """Make checkpoint ``number``, unless one is being made or a member is missing.

        Those before ``least`` are not needed any more.
        """
        if self._phase is Phase.NONE and self._whole:
            self.number, self._least = number, least
            self._phase = Phase.ASKED

    def lose(self, member: int) -> Orders:
        """A member has ended: what is being made is given up, and nothing is made any more."""
        if member in self._members:
            self._members.remove(member)
        self._absent.discard(member)
        self._whole = False
        return self.thaw()

    def freeze(self) -> Orders:
        """Every node has told something that is not answered: let all stand still, once all are present."""
        if self._phase is not Phase.ASKED or self._absent:  # an order to who is absent would be dropped
            return []
        self._phase = Phase.FREEZING
        self._frozen, self.saved = {}, {}
        return [(member, Freeze(self.number)) for member in self._members]

    def hear(self, word: Report) -> Orders:
        """A member's report, and what follows from it."""
        if isinstance(word, Present):
            self._absent.discard(word.member)
        elif isinstance(word, Frozen) and self._phase is Phase.FREEZING:
            self._frozen[word.member] = word
            if len(self._frozen) == len(self._members):
                self._phase = Phase.SAVING
                return self._saves()
        elif isinstance(word, Saved) and self._phase is Phase.SAVING:
            self.saved[word.member] = word
        return []

    def thaw(self) -> Orders:
        """The checkpoint is made, or given up: all go on."""
        frozen, self._phase = self.freezing, Phase.NONE
        return [(member, Thaw(self.number)) for member in self._members] if frozen else []

    def _saves(self) -> Orders:
        expected: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for sender, word in sorted(self._frozen.items()):
            for destination, batches in word.pushed:
                expected[destination].append((sender, batches))
        return [(member, Save(self.number, expected[member], self._least)) for member in self._members]
