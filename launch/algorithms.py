"""An arm's algorithm, the graph that it may take, and how much it sends."""

from __future__ import annotations

from typing import Any

from decentral.config import Arm
from decentral.config.problems import sentence, shown
from decentral.errors import ConfigError
from decentral.fragments import Fragmenter
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds
from decentral.topology import Topology
from launch import parts

SAMPLED_NODES = 64
"""Traffic is the mean over at most so many nodes: enough for any graph, cheap for 1000 nodes."""


def takes_topology(arm: Arm) -> bool:
    """Whether the algorithm has a place for a graph; also where the algorithm is unknown."""
    try:
        return "topology" in parts.fields_of(parts.resolve("algorithm", arm.algorithm.name))
    except ConfigError:
        return True


def build_topology(arm: Arm, seeds: Seeds) -> Topology | None:
    """The graph of ``arm``; None where it has none and its algorithm needs none.

    Raises:
        ConfigError: the graph is missing, superfluous or impossible.
    """
    if arm.topology is None:
        algorithm = parts.resolve("algorithm", arm.algorithm.name)
        if parts.needs(algorithm, "topology"):
            expectation = f"algorithm {shown(arm.algorithm.name)} needs a graph"
            step = 'write for example topology = { name = "regular", degree = 4 }'
            raise ConfigError(sentence("topology", None, expectation, step))
        return None
    if not takes_topology(arm):
        expectation = f"algorithm {shown(arm.algorithm.name)} chooses recipients without a graph"
        raise ConfigError(sentence("topology", arm.topology.name, expectation, "remove the topology"))
    # A topology may hold one graph per fragment.
    given = {"n": arm.nodes, "seeds": seeds, "fragments": arm.fragments.count}
    topology: Topology = parts.build("topology", arm.topology, given)
    return topology


def build_algorithm(arm: Arm, local_steps: int, topology: Topology | None, fragmenter: Fragmenter) -> Any:
    """The algorithm of ``arm`` for a node that trains ``local_steps`` steps a round.

    Raises:
        ConfigError: its settings are impossible, or do not go with the topology.
    """
    given = {"local_steps": local_steps, "topology": topology, "fragmenter": fragmenter}
    return parts.build("algorithm", arm.algorithm, given)


def check_algorithm(arm: Arm, algorithm: Any, network: NetworkModel) -> None:
    """Refuse an ``algorithm`` that does not go with the fragments, the network or the number of nodes.

    Raises:
        ConfigError: it does not; all problems at once.
    """
    problems: list[str] = []
    name, count = arm.algorithm.name, arm.fragments.count
    if count > 1 and "fragmenter" not in parts.fields_of(type(algorithm)):
        expectation = f"algorithm {shown(name)} sends whole models"
        step = "use 1 fragment or another algorithm such as mosaic"
        problems.append(sentence("fragments.count", count, expectation, step))
    if network.loss and getattr(algorithm, "synchronous", False):
        expectation = f"algorithm {shown(name)} waits for every message, so a lost one would stop it for ever"
        problems.append(
            sentence("network.loss", network.loss, expectation, "use 0 or an asynchronous algorithm")
        )
    if network.loss and getattr(algorithm, "request_timeout_s", 0.0) is None:
        expectation = f"algorithm {shown(name)} waits for answers, so a lost one would stop a node for ever"
        step = "use 0 or set algorithm.request_timeout_s"
        problems.append(sentence("network.loss", network.loss, expectation, step))
    if getattr(algorithm, "needs_time_limit", False) and arm.run.time_limit_s is None:
        expectation = f"algorithm {shown(name)} goes by the clock: nodes hear of others until the time is up"
        problems.append(sentence("run.time_limit_s", None, expectation, "set for example time_limit_s = 60"))
    if hasattr(algorithm, "check"):
        try:
            algorithm.check(arm.nodes)
        except ConfigError as error:
            problems += [parts.located("algorithm", text) for text in error.problems]
    if problems:
        raise ConfigError(problems)


def sent_models(algorithm: Any, topology: Topology | None, arm: Arm) -> float | None:
    """Whole models that a node of ``arm`` attempts to send per local round, mean over nodes.

    As the algorithm says (``volume``), else the mean out-degree of its graph over fragments in round 0; None
    where there is neither.
    """
    if hasattr(algorithm, "volume"):
        return float(algorithm.volume(arm.nodes))
    if topology is None:
        return None
    sampled, count = range(0, arm.nodes, -(-arm.nodes // SAMPLED_NODES)), arm.fragments.count
    sent = sum(len(topology.targets(i, 0, k)) for i in sampled for k in range(count))
    return sent / (len(sampled) * count)
