"""Other versions of what decides the last bits are refused before anything is brought anywhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from decentral.errors import PreflightError
from launch.deploy.deployment import Deployment
from launch.deploy.packages import Packages
from launch.hosts import Host
from tests.folder_hosts import SETUP, Lab, checkout, lab

__all__ = ["checkout", "lab"]


@pytest.fixture
def numeric(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Hosts of a checkout that needs numpy, of which the launcher is said to have 2.0.0."""
    lab.checkout.joinpath("setup.cfg").write_text(SETUP + "    numpy>=1.26\n")
    lab.checkout.joinpath("constraints.txt").write_text(
        "msgpack==1.1.0\nnumpy==2.0.0 # newest\n\n# the end\n"
    )
    installed = Packages.versions.func  # type: ignore[attr-defined]
    monkeypatch.setattr(Packages, "versions", property(lambda self: installed(self) | {"numpy": "2.0.0"}))
    return lab


def have(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str]) -> None:
    """Hosts have these versions of numpy in the Python that they are given."""
    look = Deployment._look

    def looked(self: Deployment, *arguments: Any) -> dict[str, Any]:
        answer = look(self, *arguments)
        if answer["given"] is not None:
            answer["given"][2]["numpy"] = versions[arguments[-1].name]
        return answer

    monkeypatch.setattr(Deployment, "_look", looked)


def bringing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is to be brought where, which is noted and not done."""
    noted: list[str] = []

    def note(self: Deployment, plans: Any, *rest: Any) -> None:
        noted.extend(f"{plan.environment} {plan.host.name}" for plan in plans if plan.environment)

    monkeypatch.setattr(Deployment, "_carry_sources", lambda *arguments: None)
    monkeypatch.setattr(Deployment, "_carry_environments", note)
    return noted


def test_a_build_of_the_same_version_is_used(numeric: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, {"h1": "2.0.0+cpu", "h2": "2.0.0"})
    bringing(monkeypatch)
    numeric.deploy(*(numeric.host(name, python=sys.executable) for name in ("h1", "h2")))
    assert numeric.told == []


def test_versions_that_differ_are_refused(numeric: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, {"h1": "2.0.0", "h2": "1.26.4"})
    noted = bringing(monkeypatch)
    with pytest.raises(
        PreflightError, match=r"^numpy is 2\.0\.0 on h1 h3, 1\.26\.4 on h2: results may differ"
    ):
        numeric.deploy(
            *(numeric.host(name, python=sys.executable) for name in ("h1", "h2")), numeric.host("h3")
        )
    assert noted == []


def test_versions_that_are_not_the_launchers_are_told(numeric: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, {"h1": "1.26.4", "h2": "1.26.4"})
    bringing(monkeypatch)
    hosts = [numeric.host(name, python=sys.executable) for name in ("h1", "h2")]
    numeric.deploy(*hosts)
    assert [line.split(":")[0] for line in numeric.told] == [
        f"host {name} has numpy 1.26.4 and this one 2.0.0" for name in ("h1", "h2")
    ]
    with pytest.raises(PreflightError, match=r"numpy is 2\.0\.0 on me, 1\.26\.4 on h1 h2"):
        numeric.deploy(*hosts, here=["me"])


@pytest.mark.parametrize("pinned", ["2.0.0", "2.1.0"])
def test_what_pip_would_install_is_known_before(
    pinned: str, numeric: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launch.deploy.plan.this_python", lambda: ["cpython", "3.99", "vax", "other"])
    numeric.checkout.joinpath("constraints.txt").write_text(f"numpy=={pinned}\n")
    noted = bringing(monkeypatch)
    if pinned == "2.0.0":
        numeric.deploy(numeric.host("h1"), here=["me"])
        assert noted == ["pip h1"]
        return
    with pytest.raises(PreflightError, match=r"numpy is 2\.0\.0 on me, 2\.1\.0 on h1"):
        numeric.deploy(numeric.host("h1"), here=["me"])
    assert noted == []


def test_constraints_of_every_kind() -> None:
    text = "# c\nTorch==2.13.0  # pinned\n\nnumpy>=1.26\nmsgpack==1.*\nx==1; python_version < '3'\ny===2\n"
    assert Packages((), text).pinned == {"torch": "2.13.0", "y": "2"}
    with pytest.raises(
        PreflightError, match=r"^constraints\.txt: 'torch 2\.13' is no constraint .*NAME==VERSION"
    ):
        _ = Packages((), "numpy==2.0\ntorch 2.13\n").pinned


def test_hosts_marked_local_have_the_launchers_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.executors.ssh import SshStarter

    told: list[Any] = []
    monkeypatch.setattr(Deployment, "deploy", lambda self, hosts, tell, here: told.append((hosts, here)))
    far, me = Host(name="far"), Host(name="me", local=True)
    SshStarter().prepare([me, far], print)
    assert told == [([far], ["me"])]
