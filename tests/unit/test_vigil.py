"""Which agents are given up, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from launch.executors import vigil as vigil_module
from launch.executors.vigil import OVERDUE_S, Vigil
from launch.stalls import Look
from tests.harness import SilentDisplay


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(vigil_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))


class Notes(SilentDisplay):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.heard_of: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def heard(self, name: str) -> None:
        self.heard_of.append(name)


def line(name: str, **known: Any) -> Any:
    return SimpleNamespace(
        **{"name": name, "ended": False, "silent": False, "remote": True, "pid": 7} | known
    )


def given_up(vigil: Vigil, *at_work: str) -> dict[str, str]:
    return {line.name: what for line, what in vigil.look(lambda line: line.name in at_work)}


def test_who_is_silent_is_given_up() -> None:
    vigil = Vigil([line("a"), line("b", silent=True), line("c", silent=True, ended=True)], SilentDisplay())
    assert given_up(vigil, "a", "b", "c") == {"b": "is lost: nothing has been heard of it for 6 s"}


def test_who_does_not_end_its_nodes_is_given_up_after_their_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    vigil = Vigil([line("a"), line("b"), line("c", ended=True)], SilentDisplay())
    clock.now_s += 1e6
    assert given_up(vigil, "a", "b") == {}, "nobody was told to end"
    vigil.stopping(grace_ms=2000)
    clock.now_s += 2.0 + OVERDUE_S
    assert given_up(vigil, "a", "b") == {}
    clock.now_s += 0.1
    assert given_up(vigil, "b", "c") == {"b": "does not end its nodes"}


def test_an_agent_here_that_is_stopped_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, display, state = Clock(monkeypatch), Notes(), "S"
    monkeypatch.setattr(vigil_module, "look_at", lambda pid: Look(state, 0, ""))
    vigil = Vigil([line("here", remote=False), line("there")], display)
    given_up(vigil)
    assert display.heard_of == ["here"]
    state = "T"
    for _ in range(3):
        clock.now_s += 1.0
        given_up(vigil)
    (note,) = display.notes
    assert note.startswith("host here: the agent (pid 7) is stopped (SIGSTOP) since 2 s")
    heard = len(display.heard_of)
    clock.now_s += 1.0
    given_up(vigil)
    assert len(display.heard_of) == heard, "nothing is heard of who is stopped"
    state = "S"
    clock.now_s += 1.0
    given_up(vigil)
    assert display.notes[1:] == ["host here: the agent goes on again"]
    assert len(display.heard_of) == heard + 1
