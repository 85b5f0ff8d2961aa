"""What a node remembers of its round, and how it repeats it."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from decentral.checkpoint.memory import Memory
from decentral.checkpoint.state import Stateful, keepsake, snapshot
from decentral.errors import CheckpointError, RunFailed
from decentral.medium import Outgoing
from decentral.messages import Message
from decentral.speech import Answer, Notice, Speech, Totals
from decentral.wire import Heard
from tests.emulated import forever, item, message, until

ANSWER = Answer(0, 5, True, [], [], [], Totals(0, 0, 0, 0))


class FakeWire:
    """Takes down what comes, gives what it was given."""

    def __init__(self, *heard: Heard) -> None:
        self.told: list[Any] = []
        self.pushed: list[int] = []
        self.shown = 0
        self.meta_bytes = 0
        self.refused: Counter[str] = Counter()
        self.heard = deque(heard)

    def speak(self, speech: Speech) -> None:
        self.told.append(speech)

    def leave(self, node: int, at_ns: int, drop: bool) -> None:
        self.told.append((node, at_ns, drop))

    def push(self, outgoing: Sequence[Outgoing]) -> None:
        self.pushed += [each.sequence for _, each in outgoing]
        self.meta_bytes += 10

    def observe(self, message: Message) -> None:
        self.shown += 1

    def lost(self, peer: int) -> float:
        raise AssertionError

    def next(
        self, block: bool, what: Callable[[], str], *, patient: bool = False, within_s: float | None = None
    ) -> Heard | None:
        return self.heard.popleft() if self.heard else None


class Part:
    """State of a node: one number."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "kept": {}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]


def entry(sequence: int) -> Outgoing:
    return 1, message(0)._replace(sequence=sequence)


def remembering(wire: FakeWire, saved: Mapping[str, Any] | None = None) -> tuple[Memory, Part]:
    memory, part = Memory(0, wire, saved=saved), Part(7)
    memory.ties(node=part)
    return memory, part


def a_round(memory: Memory) -> list[Heard | None]:
    """Push, tell, hear all there is, push, tell again."""
    memory.push([entry(1)])
    memory.speak(until(0, 0, 5))
    heard = []
    while (each := memory.next(False, str)) is not None:
        heard.append(each)
    memory.push([entry(2), entry(3)])
    memory.speak(forever(0, 5))
    return heard


def saved_round() -> tuple[FakeWire, dict[str, Any]]:
    """A node in the middle of a round whose last payload is here, unread."""
    notice = Notice(0, [], [1])
    wire = FakeWire([message(1)], notice, ANSWER)
    memory, part = remembering(wire)
    memory.boundary()
    part.value = 8
    assert [type(each) for each in a_round(memory)] == [list, Notice, Answer]
    return wire, memory.save(pending=[[message(2)]])


def test_the_round_is_repeated_and_nobody_notices() -> None:
    before, saved = saved_round()
    assert before.pushed == [1, 2, 3]
    assert len(before.told) == 2
    wire = FakeWire(ANSWER)
    memory, part = remembering(wire, saved)
    assert memory.resuming
    assert not memory.resume()
    assert part.value == 7, "as it was at the top of the round"
    heard = a_round(memory)
    assert [type(each) for each in heard] == [list, Notice, Answer]
    assert (wire.told, wire.pushed) == ([], [])
    assert memory.meta_bytes == 20
    pending = memory.next(True, str)
    assert isinstance(pending, list)
    assert pending[0].sender == 2, "what was not read is next"
    assert memory.next(True, str) == ANSWER, "and then what is new"
    memory.push([entry(3), entry(4)])
    memory.leave(0, 9, True)
    assert (wire.pushed, wire.told) == ([3, 4], [(0, 9, True)])


def test_nothing_is_heard_sooner_than_it_was() -> None:
    _, saved = saved_round()
    memory, _ = remembering(FakeWire(), saved)
    memory.resume()
    assert memory.next(False, str) is None, "before the first word there was nothing"
    with pytest.raises(RunFailed, match="waits for a payload: its algorithm does not repeat itself"):
        memory.next(True, lambda: "a payload")


def test_who_tells_something_else_is_found_out() -> None:
    _, saved = saved_round()
    memory, _ = remembering(FakeWire(), saved)
    memory.resume()
    with pytest.raises(RunFailed, match="node 0 was resumed and told others something else"):
        memory.speak(until(0, 0, 6))


def test_who_ends_the_round_sooner_is_found_out() -> None:
    _, saved = saved_round()
    memory, _ = remembering(FakeWire(), saved)
    memory.resume()
    with pytest.raises(RunFailed, match="finished a round that it had not finished"):
        memory.boundary()


def test_a_round_can_be_saved_again_while_it_is_repeated() -> None:
    """Before it begins, in the middle, and afterwards: the same, and what came since."""
    _, saved = saved_round()
    memory, _ = remembering(FakeWire(), saved)
    first = memory.save()
    memory.resume()
    second = memory.save()
    memory.push([entry(1)])
    memory.speak(until(0, 0, 5))
    third = memory.save(pending=[ANSWER])
    for again in (first, second, third):
        for key in ("words", "pushed", "state", "shown", "meta_bytes", "lingers"):
            assert again[key] == saved[key], key
    assert len(third["heard"]) == len(saved["heard"]) + 1
    assert third["heard"][-1] == (2, ANSWER), "it answers the second word, and is not heard before it"


def test_a_node_that_lingers_is_saved_as_it_is() -> None:
    wire = FakeWire([message(1)])
    memory, part = remembering(wire)
    memory.boundary()
    memory.leave(0, 5, True)
    memory.lingers()
    memory.next(True, str)
    memory.push([entry(4)])
    part.value = 9
    saved = memory.save(pending=[[message(2)]])
    assert saved["state"]["node"]["value"] == 9
    assert (saved["words"], saved["pushed"], len(saved["heard"])) == ([], [], 1)
    again, part = remembering(FakeWire(ANSWER), saved)
    assert again.resume(), "its rounds were over"
    assert part.value == 9
    pending = again.next(True, str)
    assert isinstance(pending, list)
    assert again.next(True, str) == ANSWER


def test_an_algorithm_that_talks_before_its_rounds_is_refused() -> None:
    memory, _ = remembering(FakeWire())
    memory.speak(forever(0, 0))
    with pytest.raises(RunFailed, match=r"before node\.rounds\(\)"):
        memory.boundary()


def test_another_keep_than_the_checkpoints_is_refused() -> None:
    _, saved = saved_round()
    saved["state"]["node"]["kept"] = {"z": np.zeros(2)}
    memory, _ = remembering(FakeWire(), saved)
    kept = memory.kept({"z": np.ones(2)})
    assert kept["z"].tolist() == [0, 0]
    with pytest.raises(RunFailed, match=r"keeps age: its checkpoint has z"):
        memory.kept({"age": 0})


class Pile(Stateful):
    """State in containers of several kinds."""

    GIVEN = "name"

    def __init__(self, name: str) -> None:
        self.name = name
        self.numbers = [1, [2]]
        self.counts: Counter[str] = Counter()
        self.queue = deque([item(1, 8, 0)])
        self.vector = np.zeros(2)
        self.seen = {1}


def test_a_state_is_a_copy_and_is_restored_in_place() -> None:
    pile = Pile("first")
    pile.counts["a"] += 1
    state = pile.state()
    assert "name" not in state
    pile.vector += 1
    pile.numbers[1].append(3)  # type: ignore[attr-defined]
    pile.counts["a"] += 1
    pile.seen.add(2)
    other = Pile("second")
    counts = other.counts
    other.restore(snapshot(state))
    assert other.name == "second"
    assert (other.numbers, other.seen, other.vector.tolist()) == ([1, [2]], {1}, [0, 0])
    assert other.counts is counts
    assert counts == {"a": 1}


def test_a_state_of_another_version_is_refused() -> None:
    state = Pile("old").state()
    del state["seen"]
    state["heard"] = []
    with pytest.raises(CheckpointError, match="Pile differs from this version's in heard, seen"):
        Pile("new").restore(state)


def test_what_an_algorithm_keeps_is_copied_however_deep() -> None:
    """Rounds go on with it after a checkpoint has taken note of it, and change it in place."""
    arrays = [np.zeros(2) for _ in range(4)]
    sent = message(0)
    kept = {"pair": (arrays[0], (1, [arrays[1]])), "table": {3: (arrays[2],)}, "last": deque([(arrays[3],)])}
    copy = keepsake({**kept, "sent": (sent, None)})
    for array in arrays:
        array[:] = 1
    (first, (one, [second])), table, last = copy["pair"], copy["table"], copy["last"]
    assert one == 1
    assert [each.tolist() for each in (first, second, table[3][0], last[0][0])] == [[0, 0]] * 4
    assert copy["sent"][0] is sent, "never changed in place"


@pytest.mark.parametrize(
    "value",
    [Counter("a"), defaultdict(int), OrderedDict(), np.float32(0.5), np.int64(2), deque([1], maxlen=3)],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused_by_name(value: Any) -> None:
    for kept in (value, [value], (1, {"a": value}), {"a": ({"b": [value]},)}):
        with pytest.raises(CheckpointError, match=f"keeps counts = .*its {type(value).__name__} as it is"):
            keepsake({"age": 1, "counts": kept})
