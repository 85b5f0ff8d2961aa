"""A node's model while it is trained, averaged with by others, and cut into messages."""

from __future__ import annotations

from decentral.arrays import FloatArray
from decentral.fragments import Fragments
from decentral.messages import Message
from decentral.resampled import ResampledFragments
from decentral.tasks.base import Learner


class LiveModel:
    """The learner's flat model ``x``, and what others see of it meanwhile.

    Training runs in place. Where requests may come in the middle of it, they act on a copy of the model from
    before, and the update of the training is added to that copy at the end of the window. Where none comes,
    the trained vector is the model: ``x + (y - x)`` would not be ``y`` to the bit.

    Args:
        node: id of the node, for its messages.
        learner: trains ``learner.x``.
    """

    def __init__(self, node: int, learner: Learner) -> None:
        self.x: FloatArray = learner.x
        self._node = node
        self._live: FloatArray | None = None
        self._start: FloatArray | None = None
        self._snapshot: tuple[Fragments | ResampledFragments, FloatArray] | None = None
        self._made: dict[int, Message] = {}

    def begin(self) -> None:
        """Training begins; until its end requests act on the model as it is now."""
        self._live = self.x.copy()
        self._start = None

    def touch(self) -> FloatArray:
        """The model that a request acts on, in place."""
        self.changed()
        if self._live is None:
            return self.x
        if self._start is None:
            self._start = self._live.copy()
        return self._live

    def settle(self) -> None:
        """Training is over: the model is what requests made of it, plus the update of the training."""
        if self._live is not None and self._start is not None:
            self.x -= self._start
            self.x += self._live
        self._live = self._start = None
        self.changed()

    def take_back(self) -> FloatArray:
        """Training is over: its update, shape (d,), which is taken out of the model again."""
        assert self._live is not None, "take_back() without begin()"
        update: FloatArray = self.x - (self._live if self._start is None else self._start)
        self.x[:] = self._live
        self._live = self._start = None
        self.changed()
        return update

    def changed(self) -> None:
        """What was cut of the model is out of date."""
        self._snapshot = None
        self._made.clear()

    def ordered(self, fragments: Fragments | ResampledFragments) -> FloatArray:
        """The model in fragment order, gathered once until it changes. Not to be written to."""
        if self._snapshot is None or self._snapshot[0] is not fragments:
            self.changed()
            gathered = fragments.gather(self.x)
            gathered.flags.writeable = False  # messages are slices of it, and shared by all their receivers
            self._snapshot = (fragments, gathered)
        return self._snapshot[1]

    def message(self, t: int, k: int, fragments: Fragments, *, age: int, now_ns: int) -> Message:
        """Fragment ``k`` of the model as it is now, for round ``t``; equal calls give the same object."""
        ordered = self.ordered(fragments)
        made = self._made.get(k)
        if made is None or made.round != t or made.age != age:
            values = ordered[fragments.slice(k)]
            made = Message(self._node, t, k, values, fragments.map_hash, now_ns, age=age)
            self._made[k] = made
        return made
