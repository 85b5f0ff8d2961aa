"""Cores that are pinned to: nobody's twice, free again when the last that holds them has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from launch import cores as module
from launch.cores import TakenCores, pinned


@pytest.fixture(autouse=True)
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores of names that no run on this machine uses."""
    monkeypatch.setattr(module, "_NAME", f"\0decentral-test-{os.getpid()}-{{}}")
    monkeypatch.setattr(module, "usable_cores", lambda: [3, 5, 6, 9])


@pytest.fixture
def first() -> Iterator[TakenCores]:
    made = TakenCores()
    yield made
    made.release()


@pytest.fixture
def second() -> Iterator[TakenCores]:
    made = TakenCores()
    yield made
    made.release()


def test_nobody_gets_what_another_has(first: TakenCores, second: TakenCores) -> None:
    assert first.take(2) == [3, 5]
    assert second.take(2) == [6, 9]
    first.release()
    first.release()
    assert first.take(1) == [3]
    assert second.take(3) == [5, 6, 9], "its own of before are free for it"


def test_all_or_none(first: TakenCores, second: TakenCores) -> None:
    assert first.take(2) == [3, 5]
    assert second.take(3) == []
    assert first.take(5) == []
    assert second.take(4) == [3, 5, 6, 9], "who is refused holds nothing"


def test_none_are_asked_for(first: TakenCores, second: TakenCores) -> None:
    assert first.take(0) == []
    assert second.take(4) == [3, 5, 6, 9]


def test_members_that_placement_pins_nowhere_take_none(first: TakenCores, second: TakenCores) -> None:
    assert pinned([None, None], first) == [None, None]
    assert pinned([0, 1, 2], first) == [3, 5, 6]
    assert pinned([0, 1], second) == [None, None], "one is left, and two are needed"
    assert pinned([0], second) == [9]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_core_stays_taken_until_the_last_child_has_ended(
    number: signal.Signals, first: TakenCores, second: TakenCores
) -> None:
    assert first.take(4) == [3, 5, 6, 9]
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pause()
        finally:
            os._exit(1)
    try:
        first.release()
        assert second.take(1) == []
    finally:
        os.kill(pid, number)
        os.waitpid(pid, 0)
    assert second.take(4) == [3, 5, 6, 9]
