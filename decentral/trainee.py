"""What a node does with its model: trains it, averages it with others', hands it to a checkpoint.

The part of ``decentral.node.Node`` between its messages and its rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from types import SimpleNamespace
from typing import Any

from decentral.arrays import FloatArray
from decentral.checkpoint.state import keepsake
from decentral.correspondent import Correspondent
from decentral.following import Schedule
from decentral.fragments import Fragments
from decentral.live import LiveModel
from decentral.medium import Medium, Poll
from decentral.messages import Kind, Message
from decentral.mixing import Mixer, Part
from decentral.queues import Traffic
from decentral.resampled import ResampledFragments
from decentral.seeding import Seeds
from decentral.tasks.base import Learner, Resumable


class Trainee(Correspondent):
    """Base of ``Node``, which documents the arguments."""

    def __init__(
        self,
        *,
        id: int,
        n: int,
        learner: Learner,
        sizes: Sequence[int],
        seeds: Seeds,
        medium: Medium,
        durations: Callable[[int], int],
        schedule: Schedule,
        synchronous: bool,
        traffic: Traffic,
    ) -> None:
        model = LiveModel(id, learner)
        super().__init__(
            id=id,
            n=n,
            model=model,
            sizes=sizes,
            seeds=seeds,
            medium=medium,
            durations=durations,
            schedule=schedule,
            synchronous=synchronous,
            traffic=traffic,
        )
        self._learner = learner
        self._train_loss: float | None = None
        self._train_ns = 0
        self._ages: list[int] = []
        self._kept = SimpleNamespace()

    def train(self, *, steps: int) -> None:
        """H local SGD steps in one compute window.

        The steps run on a snapshot; their update is added to the live model at the end of the window, after
        whatever requests that arrived meanwhile did to it. Where none can arrive, this is training in place.
        """
        if self._rule is not None:
            self._model.begin()
        self._compute(steps)
        self._model.settle()

    def local_update(self, *, steps: int) -> FloatArray:
        """The sum of H local SGD steps from the present model, shape (d,), which stays as it is."""
        self._model.begin()
        self._compute(steps)
        return self._model.take_back()

    def apply(self, update: FloatArray) -> None:
        """``x += update``."""
        self.x += update
        self._model.changed()

    def update(
        self, mix: Mixer, received: Sequence[Message], fragments: Fragments | ResampledFragments
    ) -> None:
        """Aggregate: ``x = mix(x, received)``, parameter by parameter (in fragment order)."""
        if not received:
            return
        ordered = self._model.ordered(fragments).copy()
        where = fragments.where
        parts = [Part(m.sender, m.fragment, where(m.round, m.fragment), m.values, m.round) for m in received]
        fragments.scatter(mix(ordered, parts), self.x)
        # An answer to a request is the model of the moment; its round is the request's.
        self._ages += [self._round - each.round for each in received if each.kind is not Kind.REPLY]
        self._model.changed()

    def state(self) -> dict[str, Any]:
        """A copy of what a checkpoint keeps of this node between two rounds, or while it lingers.

        Raises:
            CheckpointError: a checkpoint cannot give back what the algorithm keeps.
        """
        assert isinstance(self._learner, Resumable), "launch.build refuses other learners"
        return {
            "round": self._round,
            "x": self.x.copy(),
            "learner": self._learner.state(),
            "train_loss": self._train_loss,
            "kept": keepsake(vars(self._kept)),
            "inqueue": self.inqueue.state(),
            "traffic": astuple(self.traffic),
            "asked": self._asked,
            "reply": self._reply,
            "ticks": self._ticks,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on what ``state`` gave."""
        assert isinstance(self._learner, Resumable), "launch.build refuses other learners"
        self._round = state["round"]
        self.x[:] = state["x"]
        self._model.changed()
        self._learner.restore(state["learner"])
        self._train_loss = state["train_loss"]
        self.inqueue.restore(state["inqueue"])
        for field, value in zip(fields(self.traffic), state["traffic"], strict=True):
            setattr(self.traffic, field.name, value)
        self._asked, self._reply, self._ticks = state["asked"], state["reply"], state["ticks"]

    def _compute(self, steps: int) -> None:
        """Run H steps in place."""
        rng = self.rng("batch", self._round)
        duration_ns = self._durations(self._round)
        before_ns = self._now()
        self._tick(before_ns + self._medium.foreseen_ns(duration_ns))

        def work(poll: Poll | None) -> float:
            return self._learner.train(steps, rng, poll)

        self._train_loss, arrived = self._medium.compute(work, duration_ns)
        self._train_ns += self._now() - before_ns
        self._tick(self._now())
        self._accept(arrived)
