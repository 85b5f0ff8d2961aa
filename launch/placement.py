"""Which node runs on which host and core: a pure function of the hosts and, where nodes have them, regions.

Where a node runs has no influence on what it computes in emulated time (ARCHITECTURE.md), so this is about
speed alone: cores are loaded evenly, and nodes that are near each other in the emulated network share a host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from decentral.config.problems import choose, sentence
from decentral.errors import ConfigError

SLACK = Fraction(5, 4)
"""A region stays whole where its host then has at most so many times the nodes that are its due."""


@dataclass(frozen=True)
class Capacity:
    """What a host offers.

    Attributes:
        name: of the host.
        cores: usable ones; None where that is unknown.
        share: its due is in proportion to cores times this; with 0 it gets no nodes.
        nodes: exactly the nodes that it gets, or None.
        regions: it gets exactly the nodes of these regions, or None.
    """

    name: str
    cores: int | None
    share: float = 1.0
    nodes: tuple[int, ...] | None = None
    regions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Placement:
    """Where all members of a job run.

    Attributes:
        n: number of nodes; member n is the observer, n + 1 the timekeeper if there is one.
        host_of: name of each member's host.
        core_of: index into its host's usable cores; None where it is not pinned.
        cores: usable cores by host, in the order given; None where unknown.
    """

    n: int
    host_of: Mapping[int, str]
    core_of: Mapping[int, int | None]
    cores: Mapping[str, int | None]

    def members_on(self, host: str) -> tuple[int, ...]:
        """All members on ``host``, ascending."""
        return tuple(member for member, name in self.host_of.items() if name == host)

    def nodes_on(self, host: str) -> tuple[int, ...]:
        """The nodes on ``host``, ascending."""
        return tuple(member for member in self.members_on(host) if member < self.n)

    def tcp_sockets(self, host: str) -> int:
        """Ports that members on ``host`` listen on: one each where there are members on other hosts."""
        members = self.members_on(host)
        return len(members) if len(members) < len(self.host_of) else 0

    def nodes_per_core(self, host: str) -> float | None:
        """Above 1: so many nodes take turns on a core; None where cores are unknown."""
        cores = self.cores[host]
        return None if cores is None else len(self.nodes_on(host)) / cores


def place(
    n: int, hosts: Sequence[Capacity], *, regions: Sequence[str] | None, timekeeper: bool = True
) -> Placement:
    """Place ``n`` nodes, the observer and the timekeeper.

    Hosts that list nodes or regions get exactly those. The other nodes go to the other hosts in contiguous
    blocks in proportion to cores times share (largest remainder), to every such host at least one if there
    are enough. If nodes have regions, blocks are of regions instead, and a region stays on one host as far as
    ``SLACK`` allows. Observer and timekeeper go to the host that then has the fewest processes per core.
    Members are pinned on hosts that have a core for each of theirs.

    Hosts of unknown cores are taken to have as many as the smallest known one, and are not pinned on.

    Args:
        n: number of nodes.
        hosts: in the order of the hosts file; names are distinct.
        regions: of each node in the emulated network; None where it has none.
        timekeeper: whether there is one.

    Raises:
        ConfigError: lists name nodes or regions that do not exist or leave nodes out; all problems at once.
    """
    nodes_on = _listed(n, hosts, regions)
    open_ = [host for host in hosts if host.nodes is None and host.regions is None]
    rest = [node for node in range(n) if all(node not in nodes for nodes in nodes_on.values())]
    due = _due(len(rest), [_weight(host, hosts) for host in open_])
    if rest and not sum(due):
        raise ConfigError(_left_out(rest, hosts, open_))
    names = [host.name for host in open_]
    if regions is None:
        starts = [sum(due[:index]) for index in range(len(due))]
        blocks = [rest[start : start + count] for start, count in zip(starts, due, strict=True)]
    else:
        blocks = _by_region(rest, due, regions)
    nodes_on |= dict(zip(names, blocks, strict=True))
    host_of = {node: host.name for host in hosts for node in nodes_on[host.name]}
    others = (n, n + 1) if timekeeper else (n,)

    def load(host: Capacity) -> tuple[Fraction, int]:
        """Processes per core once ``others`` are there too; of equal ones who has most cores spare."""
        nodes, cores = len(nodes_on[host.name]), _cores(host, hosts)
        return Fraction(nodes + len(others), cores), nodes - cores

    host_of |= dict.fromkeys(others, min(hosts, key=load).name)
    host_of = dict(sorted(host_of.items()))
    return Placement(n, host_of, _pinned(hosts, host_of), {host.name: host.cores for host in hosts})


def _listed(n: int, hosts: Sequence[Capacity], regions: Sequence[str] | None) -> dict[str, list[int]]:
    """The nodes of every host that lists nodes or regions."""
    problems: list[str] = []
    found: dict[str, list[int]] = {}
    taken: dict[int, str] = {}
    for host in hosts:
        prefix = f'host "{host.name}": '
        if host.nodes is not None:
            wanted = sorted(host.nodes)
            if strange := [node for node in wanted if not 0 <= node < n]:
                told = f"there is no node {ranges(strange)} among {n} nodes"
                problems.append(
                    prefix + sentence("nodes", host.nodes, told, f"list nodes between 0 and {n - 1}")
                )
        elif host.regions is None:
            continue
        elif regions is None:
            told = "this network has no regions"
            step = 'remove it, or use a network with regions such as "aws10"'
            problems.append(prefix + sentence("regions", host.regions, told, step))
            continue
        else:
            known = set(regions)
            problems += [
                prefix + sentence("regions", region, "no node is in it", choose(region, known))
                for region in host.regions
                if region not in known
            ]
            wanted = [node for node in range(n) if regions[node] in host.regions]
        for node in wanted:
            if node in taken:
                told = f"host {taken[node]} has node {node} already"
                problems.append(prefix + sentence("nodes", node, told, "leave it to one host"))
            taken.setdefault(node, host.name)
        found[host.name] = wanted
    if problems:
        raise ConfigError(problems)
    return found


def _left_out(rest: Sequence[int], hosts: Sequence[Capacity], open_: Sequence[Capacity]) -> str:
    told = f"no host lists {'node' if len(rest) == 1 else 'nodes'} {ranges(rest)}"
    if open_:
        shares = ", ".join(f"{host.name} share = {host.share:g}" for host in open_)
        return sentence("share", 0, f"{told}, and the others have none", f"raise one of {shares}")
    key = "regions" if all(host.regions is not None for host in hosts) else "nodes"
    step = f"list them, or add a host without {key}, which gets what is left"
    return sentence(f"host.{key}", [host.name for host in hosts], told, step)


def _cores(host: Capacity, hosts: Sequence[Capacity]) -> int:
    """Cores of ``host``, assumed where unknown."""
    return host.cores or min((other.cores for other in hosts if other.cores), default=1)


def _weight(host: Capacity, hosts: Sequence[Capacity]) -> Fraction:
    return _cores(host, hosts) * Fraction(host.share)


def _due(count: int, weights: Sequence[Fraction]) -> list[int]:
    """``count`` dealt in proportion to ``weights``: largest remainder, ties to the first.

    If there are enough, who would get nothing gets one from whoever is furthest above its exact part.
    """
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    exact = [count * weight / total for weight in weights]
    due = [floor(part) for part in exact]
    by_remainder = sorted(range(len(due)), key=lambda index: due[index] - exact[index])
    for index in by_remainder[: count - sum(due)]:
        due[index] += 1
    positive = [index for index, weight in enumerate(weights) if weight > 0]
    if count >= len(positive):
        for index in positive:
            if due[index] == 0:
                rich = [other for other in positive if due[other] > 1]
                due[max(rich, key=lambda other: due[other] - exact[other])] -= 1
                due[index] = 1
    return due


def _by_region(rest: Sequence[int], due: Sequence[int], regions: Sequence[str]) -> list[list[int]]:
    """``rest`` dealt region by region, large ones first, each to the host that lacks most of its due."""
    blocks: list[list[int]] = [[] for _ in due]
    groups: dict[str, list[int]] = {}
    for node in rest:
        groups.setdefault(regions[node], []).append(node)
    left = len(rest)
    waiting = sorted(groups.values(), key=len, reverse=True)
    while waiting:
        group = waiting.pop(0)
        empty = [index for index, block in enumerate(blocks) if due[index] and not block]
        # Nodes that are just enough for the hosts without any go to those alone.
        candidates = empty if len(empty) == left else range(len(due))
        index = max(candidates, key=lambda index: due[index] - len(blocks[index]))
        room = due[index] - len(blocks[index])
        most = left - len(empty) + (index in empty)
        whole = len(blocks[index]) + len(group) <= SLACK * due[index]
        taken = min(len(group), most, len(group) if whole else room)
        blocks[index] += group[:taken]
        left -= taken
        if group[taken:]:
            waiting = sorted([group[taken:], *waiting], key=len, reverse=True)
    return [sorted(block) for block in blocks]


def _pinned(hosts: Sequence[Capacity], host_of: Mapping[int, str]) -> dict[int, int | None]:
    """A core of its own for every member of a host that has so many."""
    core_of: dict[int, int | None] = dict.fromkeys(host_of)
    for host in hosts:
        members = [member for member, name in host_of.items() if name == host.name]
        if host.cores is not None and len(members) <= host.cores:
            core_of |= {member: core for core, member in enumerate(members)}
    return core_of


def ranges(numbers: Iterable[int]) -> str:
    """Ascending ``numbers`` in short: ``0-15, 20``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
