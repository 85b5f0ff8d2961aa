"""Labs for tests: made when the first test asks for one, as new for every test, gone at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.requirements import unmet
from tests.lab.slurm import Slurm

ORPHANS_S = 10.0
"""Within which nothing may be left on any host once what a test started has ended."""


def lab_of(n: int) -> Iterator[Lab]:
    """A lab of ``n`` hosts, or a skipped test."""
    if reason := unmet():
        pytest.skip(reason)
    with Lab(n) as lab:
        yield lab


def left_as_found(lab: Lab) -> None:
    """Bring ``lab`` back to what it was; fail the test whose processes are still on a host."""
    _, left = lab.quiet(ORPHANS_S)
    lab.end_strangers()
    lab.restore()
    if left:
        pytest.fail("left on hosts:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session")
def three_hosts() -> Iterator[Lab]:
    """Three hosts for the whole session; tests use ``lab3``."""
    yield from lab_of(3)


@pytest.fixture(scope="session")
def ten_hosts() -> Iterator[Lab]:
    """Ten hosts for the whole session; tests use ``lab10``."""
    yield from lab_of(10)


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[Slurm]:
    """Slurm on three hosts of its own for the whole session; tests use ``slurm3``."""
    if reason := unmet(slurm=True):
        pytest.skip(reason)
    with Lab(3) as lab, Slurm(lab) as slurm:
        yield slurm


@pytest.fixture
def lab3(three_hosts: Lab) -> Iterator[Lab]:
    """Three hosts, booted, plugged in, unlimited; nothing may be left on them afterwards."""
    yield three_hosts
    left_as_found(three_hosts)


@pytest.fixture
def lab10(ten_hosts: Lab) -> Iterator[Lab]:
    """Ten hosts; see ``lab3``."""
    yield ten_hosts
    left_as_found(ten_hosts)


@pytest.fixture
def slurm3(three_nodes: Slurm) -> Iterator[Slurm]:
    """A Slurm cluster of three hosts; see ``lab3``."""
    yield three_nodes
    left_as_found(three_nodes.lab)
    three_nodes.restore()
