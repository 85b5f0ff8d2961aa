"""A run that is killed and goes on from its checkpoint ends as one that was never killed, to the bit.

Inline, where every moment can be chosen; ``tests/integration/test_resume.py`` kills processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from decentral.checkpoint.plain import Decoder, Encoder
from decentral.checkpoint.state import Stateful, snapshot
from decentral.config import Arm
from decentral.node import Node
from launch import checkpoints
from launch.build import load_workload
from launch.emulator import Emulation
from launch.executors import inline
from launch.keeping import KEPT
from launch.paths import JobFolder
from tests.asynchronous import ROUND_S, contender, star
from tests.conformance.test_algorithms import each_algorithm, settings
from tests.conformance.test_asynchronous import NETWORKS, VARIANTS
from tests.emulated import Jumbled
from tests.resumed import REAL, logged, play

UNEVEN = {"time_per_round": ROUND_S, "slow_nodes": 2, "slow_factor": 3.0, "jitter": 0.2}
MOMENTUM = {"lr": 0.01, "batch": 2, "local_steps": 2, "momentum": 0.9}
PATIENT: dict[str, tuple[str, dict[str, Any]]] = {
    "adpsgd, patient": ("adpsgd", {}),
    "adpsgd, patient, overlap": ("adpsgd", {"overlap": True}),
    "swarm, patient": ("swarm", {}),
    "swift_push, flush": ("swift_push", {"flush": True}),
}
"""Their requests have no timeout; not for networks that lose messages."""
# How many payloads travel together under late push is a matter of real timing.
ASYNCHRONOUS_REAL = (*REAL, "total_meta")


def check(
    arm: Arm, folder: Path, monkeypatch: pytest.MonkeyPatch, *, synchronous: bool, seed: str, kills: int = 4
) -> None:
    """Kill ``arm`` after checkpoints at random moments, several times, and compare with it undisturbed."""
    arm = arm.model_copy(update={"checkpoint": arm.checkpoint.model_copy(update={"every": 1})})
    ignored = REAL if synchronous else ASYNCHRONOUS_REAL
    whole = JobFolder(folder / "whole")
    expected, chances = play(arm, whole, [], monkeypatch, kill=False)
    assert expected is not None
    chance = random.Random(seed)
    cut = JobFolder(folder / "cut")
    first = sorted(chance.sample(range(1, chances * 3 // 4), 2))
    models, _ = play(arm, cut, first, monkeypatch, kill=True)
    assert models is None, "it was killed"
    for _ in range(kills):
        if models is not None:
            break  # the moment asked for was after the end
        again = [chance.randint(1, chances)]
        models, _ = play(arm, cut, again, monkeypatch, kill=True)
    if models is None:
        models, _ = play(arm, cut, [], monkeypatch, kill=False)
    assert models is not None
    assert models.tobytes() == expected.tobytes()
    assert logged(cut, ignored) == logged(whole, ignored)


@each_algorithm
@pytest.mark.parametrize("seed", range(2))
def test_every_algorithm(
    module: ModuleType, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = settings(module, train=MOMENTUM)
    name = f"{module.__name__} {seed}"
    check(arm, tmp_path, monkeypatch, synchronous=module.ALGORITHM.synchronous, seed=name)


@pytest.mark.parametrize("variant", [*VARIANTS, *PATIENT])
def test_asynchronous_ones_on_slow_links(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variant on one network, another one for the next, with stragglers that compute slowly."""
    name, asked = {**VARIANTS, **PATIENT}[variant]
    names = [network for network in NETWORKS if variant in VARIANTS or network != "loss"]
    network = NETWORKS[names[[*VARIANTS, *PATIENT].index(variant) % len(names)]]
    arm = contender(name, asked, network=network, compute=UNEVEN, rounds=6, train=MOMENTUM)
    check(arm, tmp_path, monkeypatch, synchronous=False, seed=variant)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_way_of_sharing_links(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of transfers that share links, are cut by a flush, or have begun with an overhead."""
    arm = contender("divshare", {}, network=NETWORKS[network], compute=UNEVEN, rounds=6)
    check(arm, tmp_path, monkeypatch, synchronous=False, seed=network)


@pytest.mark.parametrize("name", ["mosaic", "epidemic", "dpsgd"])
@pytest.mark.parametrize("limited", [False, True])
def test_synchronous_ones_on_slow_links(
    name: str, limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the time limit cuts off a round, which is undone."""
    rounds = {"max_rounds": None, "time_limit_s": 8 * ROUND_S} if limited else {}
    tables: dict[str, Any] = {
        "topology": {"name": "regular", "settings": {"degree": 3}},
        "fragments": {"count": 4 if name == "mosaic" else 1, "map": "global"},
        "run": {"test_after": 2, **rounds},
    }
    arm = contender(name, {}, network=star(stragglers=4), compute=UNEVEN, rounds=6, **tables)
    check(arm, tmp_path, monkeypatch, synchronous=True, seed=name)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("variant", ["divshare", "adpsgd-overlap", "swarm", "gossip", "pingpong"])
def test_in_whatever_order_nodes_really_run(
    variant: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payloads and words of the timekeeper wait unread when the checkpoint is made; they are in it."""
    name, asked = VARIANTS[variant]
    monkeypatch.setattr(Jumbled, "seed", seed)
    monkeypatch.setattr(inline, "Scheduler", Jumbled)
    arm = contender(name, asked, network=NETWORKS["latency"], compute=UNEVEN, rounds=6)
    check(arm, tmp_path, monkeypatch, synchronous=False, seed=f"{variant} {seed}")


def given(thing: Stateful) -> Iterator[tuple[str, str, Any]]:
    """(class, name, value) of everything that checkpoints of ``thing`` and of what it holds leave out."""
    for name, value in vars(thing).items():
        if name in thing.GIVEN.split():
            if not isinstance(value, Stateful):  # else its owner saves it
                yield type(thing).__name__, name, value
            continue
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Stateful):
                yield from given(part)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["divshare", "adpsgd"])
def test_what_a_checkpoint_leaves_out_never_changes(
    name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds an attribute that changes and calls it given finds out here; what is saved comes back."""
    made: list[Emulation] = []
    before: list[list[tuple[str, str, Any]]] = []

    def noted(*arguments: Any) -> Emulation:
        emulation = Emulation(*arguments)
        made.append(emulation)
        before.append(copied(emulation.timekeeper))
        return emulation

    def copied(thing: Stateful) -> list[tuple[str, str, Any]]:
        return [(*where, snapshot(value)) for *where, value in given(thing)]  # type: ignore[misc]

    monkeypatch.setattr(inline, "Emulation", noted)
    patient = {"request_timeout_s": 4 * ROUND_S} if name == "adpsgd" else {}
    arm = contender(name, patient, network=NETWORKS[network], compute=UNEVEN, rounds=6)
    play(arm, JobFolder(tmp_path), [], monkeypatch, kill=False)
    (emulation,) = made
    for (kind, attribute, then), (_, _, now) in zip(before[0], copied(emulation.timekeeper), strict=True):
        same = np.array_equal(then, now) if isinstance(then, np.ndarray) else then == now
        assert same, f"{kind}.{attribute} changes, so it is no given"
    assert {kind for kind, _, _ in before[0]} >= {"Timekeeper", "Links", "Ledger", "Tally"}
    encoder = Encoder()
    packed = encoder.pack(emulation.state())
    arrays = [array.data.cast("B") for array in encoder.arrays]
    workload = load_workload(arm, 1, {})
    again = Emulation(workload, b"another1")
    again.restore(Decoder(arrays).unpack(packed))
    second = Encoder()
    assert second.pack(again.state()) == packed
    assert [array.tobytes() for array in second.arrays] == [array.tobytes() for array in encoder.arrays]


def test_a_checkpoint_changes_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = contender("adpsgd", {"overlap": True}, compute=UNEVEN, rounds=6)
    asked = plain.model_copy(update={"checkpoint": plain.checkpoint.model_copy(update={"every": 1})})
    first, second = JobFolder(tmp_path / "plain"), JobFolder(tmp_path / "asked")
    without, _ = play(plain, first, [], monkeypatch, kill=False)
    with_, _ = play(asked, second, range(1, 100, 3), monkeypatch, kill=False)
    assert without is not None
    assert with_ is not None
    assert without.tobytes() == with_.tobytes()
    assert logged(first) == logged(second)
    assert not checkpoints.numbers(first)
    assert len(checkpoints.numbers(second)) == KEPT


@dataclass(frozen=True, kw_only=True)
class Forgetful:
    """Sends to another node every round, which one it does not ask ``node.keep`` to remember."""

    synchronous: ClassVar[bool] = False

    local_steps: int

    def volume(self, n: int) -> float:
        """One model."""
        return 1.0

    def run(self, node: Node) -> None:
        """The turn is counted beside the rounds."""
        whole = node.fragments()
        turn = iter(range(1000))
        for k in node.rounds():
            node.train(steps=self.local_steps)
            peer = node.peers[next(turn) % len(node.peers)]
            node.outqueue.extend([(int(peer), node.message(k, 0, whole))])
            node.inqueue.take_latest()


def test_an_algorithm_that_hides_its_state_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = contender(f"{__name__}:Forgetful", {}, rounds=6)
    arm = arm.model_copy(update={"checkpoint": arm.checkpoint.model_copy(update={"every": 1})})
    folder = JobFolder(tmp_path)
    assert play(arm, folder, [30], monkeypatch, kill=True)[0] is None
    with pytest.raises(AssertionError, match=r"does not repeat itself.*must be in node\.keep"):
        play(arm, folder, [], monkeypatch, kill=False)
