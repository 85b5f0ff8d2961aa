"""What the machines of a run must have before anything is started."""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

from decentral.config import Arm, Experiment
from decentral.disk import unwritable
from decentral.errors import PreflightError
from decentral.tasks.base import size_of
from launch.compose import compose, settled
from launch.host_schema import Host, Hosts
from launch.keeping import KEPT
from launch.memory import memory_available
from launch.placement import Placement
from launch.placing import place_arm
from launch.rounds import most_rounds
from launch.versions import differing

Facts: TypeAlias = Mapping[str, Any]
"""What is known of one host; keys that are absent are not checked."""

BYTES_PER_LOG_LINE = 400
UNKNOWN_ROUNDS = 10_000
"""Rounds to have room for where a wall clock's time limit alone ends a run."""
REPORT_BYTES = 10 << 20
FLOAT_BYTES = 4
AGENT_BYTES = 600 << 20
NODE_BYTES = 20 << 20
CHECKPOINT_MODELS = 6
"""Vectors of the model's size in a node's part of a checkpoint: what it holds, heard and has under way."""
DESCRIPTORS_PER_NODE = 3


@dataclass(frozen=True)
class Demand:
    """What one run of an arm takes.

    Attributes:
        arm: the arm.
        d: model size.
        rounds: local rounds of a node at most, assumed where only the machine's speed decides.
    """

    arm: Arm
    d: int
    rounds: int

    @classmethod
    def of(cls, arm: Arm, seed: int) -> Demand:
        """That of ``arm``, which is possible, under ``seed``."""
        d = size_of(compose(arm, seed).task.shapes())
        return cls(arm, d, most_rounds(arm, seed) or UNKNOWN_ROUNDS)

    def memory_bytes(self, nodes: int, node_bytes: int = NODE_BYTES) -> int:
        """Of a host with ``nodes`` of the nodes, its agent included."""
        # Live model, gradient, three snapshots under way, and the observer's copy.
        return AGENT_BYTES + nodes * (node_bytes + 6 * FLOAT_BYTES * self.d)

    def disk_bytes(self, nodes: int) -> int:
        """That ``nodes`` of the nodes write: logs, final models, and the checkpoints that are kept."""
        run, saved = self.arm.run, self.arm.checkpoint.asked
        lines = self.rounds * (1 + 1 / run.test_after)
        models = run.save_models + (KEPT * CHECKPOINT_MODELS if saved else 0)
        return int(nodes * (lines * BYTES_PER_LOG_LINE + models * FLOAT_BYTES * self.d))

    @property
    def descriptors(self) -> int:
        """Of a member, wherever the others run."""
        return descriptors(self.arm.nodes)


def descriptors(nodes: int, per_node: int = DESCRIPTORS_PER_NODE) -> int:
    """File descriptors that a member needs among ``nodes`` nodes."""
    return 64 + per_node * nodes


def preflight(experiment: Experiment, out: Path, *, inline: bool = False, elsewhere: bool = False) -> None:
    """Refuse what cannot work here: unwritable or full disk, too little memory, too few file descriptors.

    Args:
        experiment: checked.
        out: folder that the run folder will be in.
        inline: all nodes will be in this process.
        elsewhere: nodes run on hosts, which ``check_facts`` judges, this machine among them if it is one.

    Raises:
        PreflightError: says what is there, what is needed and what to change.
    """
    _writable(out)
    _space(experiment, out)
    if not elsewhere:
        _memory(experiment, 0 if inline else NODE_BYTES)
        _descriptors(experiment, 1 if inline else DESCRIPTORS_PER_NODE)


def check_facts(experiment: Experiment, hosts: Hosts, facts: Mapping[str, Facts]) -> list[str]:
    """Why ``experiment`` cannot run on ``hosts``, one sentence each; empty if it can.

    Args:
        experiment: checked.
        hosts: of the run, checked with it.
        facts: by host: ``cores``, ``memory_available``, ``disk_free`` (of its own folder) and
            ``disk_planned`` (of which an environment is yet to take) in bytes,
            ``nofile_hard`` (-1: unlimited), ``versions`` of packages, ``address`` of its data sockets,
            ``ports_free`` (of its range, as far as they were counted), ``ports_taken`` (some of the others).

    Raises:
        ConfigError: what hosts list does not fit an arm.
    """
    problems = [
        problem
        for arm in settled(experiment).arms
        for problem in _misfits(arm, experiment.seeds, hosts, facts)
    ]
    return [*dict.fromkeys(problems), *_disagreements(facts), *_unreachable(facts)]


def check_job(arm: Arm, seed: int, hosts: Hosts, facts: Mapping[str, Facts]) -> list[str]:
    """As ``check_facts``, of one arm with one seed."""
    return [*_misfits(arm, (seed,), hosts, facts), *_disagreements(facts), *_unreachable(facts)]


def _misfits(arm: Arm, seeds: Sequence[int], hosts: Hosts, facts: Mapping[str, Facts]) -> list[str]:
    """Why one of the runs of ``arm`` does not fit ``hosts``."""
    cores = {name: known["cores"] for name, known in facts.items() if "cores" in known}
    # The seed decides where nodes with regions are, and how many rounds the fastest one can have.
    runs = [(Demand.of(arm, seed), place_arm(arm, seed, hosts, cores)) for seed in seeds]
    return [
        f"host {host.name}: {text}"
        for host in hosts.hosts
        for text in _lacking(host, runs, facts.get(host.name, {}))
    ]


def _lacking(host: Host, runs: Sequence[tuple[Demand, Placement]], known: Facts) -> list[str]:
    """What ``host`` lacks in one of the runs of an arm."""
    if not any(placement.members_on(host.name) for _, placement in runs):
        return []
    demand, nodes = runs[0][0], max(len(placement.nodes_on(host.name)) for _, placement in runs)
    memory = "memory_available", demand.memory_bytes(nodes), "memory", "lower its share, or use fewer nodes"
    # A host that does not see the run folder gives back what a run has taken when it is over.
    most = max(demand.disk_bytes(len(placement.nodes_on(host.name))) for demand, placement in runs)
    planned = known.get("disk_planned", 0)
    space = f"disk space ({planned >> 20} MiB of it for an environment)" if planned else "disk space"
    disk = "disk_free", most + planned, space, "free space, or set folder for this host"
    # What runs on the launcher's machine writes into the run folder, where there is space.
    needs = (memory,) if host.local else (memory, disk)
    lacking = [
        f'{nodes} nodes of arm "{demand.arm.name}" need about {needed >> 20} MiB of {what} and '
        f"{known[key] >> 20} MiB are free; {step}"
        for key, needed, what, step in needs
        if key in known and known[key] < needed
    ]
    needed, allowed = demand.descriptors, known.get("nofile_hard", -1)
    if 0 <= allowed < needed:
        lacking.append(
            f"{demand.arm.nodes} nodes need {needed} file descriptors per process and it allows {allowed}; "
            f"raise its hard limit (ulimit -Hn) or use fewer nodes"
        )
    return lacking + _lacking_ports(
        host, max(placement.tcp_sockets(host.name) for _, placement in runs), known
    )


def _lacking_ports(host: Host, sockets: int, known: Facts) -> list[str]:
    """Now that cores are known, more members may be there than the hosts file alone made expect."""
    ports, free = host.port_range, known.get("ports_free")
    if ports is not None and ports[1] - ports[0] + 1 < sockets:
        told = f"ports = {host.ports} are fewer"
    elif free is not None and free < sockets:
        taken = ", ".join(map(str, known.get("ports_taken", ())))
        told = f"only {free} of ports = {host.ports} are free (taken: {taken}, ...)"
    else:
        return []
    return [f"{sockets} processes need a port each and {told}; set a longer range"]


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise unwritable(out, error) from error


def _space(experiment: Experiment, out: Path) -> None:
    runs = [
        Demand.of(arm, seed).disk_bytes(arm.nodes) for arm in experiment.arms for seed in experiment.seeds
    ]
    needed = REPORT_BYTES + sum(runs)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise PreflightError(
            f"{out} has {free >> 20} MiB free: this run writes about {needed >> 20} MiB; free space, set "
            f"run.save_models = false, or choose another folder with --out"
        )


def _memory(experiment: Experiment, node_bytes: int) -> None:
    available = memory_available()
    for arm in experiment.arms:
        needed = Demand.of(arm, experiment.seeds[0]).memory_bytes(arm.nodes, node_bytes)
        if needed > available:
            raise PreflightError(
                f'arm "{arm.name}": {arm.nodes} nodes need about {needed >> 20} MiB of memory and '
                f"{available >> 20} MiB are available; use fewer nodes or a smaller model"
            )


def _descriptors(experiment: Experiment, per_node: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    nodes = max(arm.nodes for arm in experiment.arms)
    needed = descriptors(nodes, per_node)
    if needed > hard != resource.RLIM_INFINITY:
        raise PreflightError(
            f"{nodes} nodes need {needed} file descriptors per process and this host allows {hard}; "
            f"raise the limit with ulimit -n or use fewer nodes"
        )


def _disagreements(facts: Mapping[str, Facts]) -> list[str]:
    """Versions that differ where equal ones give equal results."""
    return differing({name: known["versions"] for name, known in facts.items() if "versions" in known})


def _unreachable(facts: Mapping[str, Facts]) -> list[str]:
    """Hosts that listen where only they themselves can connect."""
    addresses = {name: ip_address(known["address"]) for name, known in facts.items() if known.get("address")}
    if all(address.is_loopback for address in addresses.values()):
        return []  # they are one machine
    return [
        f"host {name}: its data sockets would listen on {address}, which other hosts cannot reach; "
        f"set bind for this host to an address that they can"
        for name, address in addresses.items()
        if address.is_loopback
    ]
