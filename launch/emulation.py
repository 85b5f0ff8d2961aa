"""The emulated network and the emulated cost of computing of an arm under a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from decentral.config import Arm, Part
from decentral.config.problems import sentence, shown
from decentral.errors import ConfigError
from decentral.network.compute import (
    NS_PER_S,
    ComputeModel,
    fast_rate_bps,
    match_calibrated_ns,
    match_nominal_ns,
    slow_factors,
)
from decentral.network.model import NetworkModel
from decentral.seeding import Seeds
from launch import parts


def build_network(part: Part, n: int, seeds: Seeds, *, stragglers: bool = True) -> NetworkModel:
    """The emulated network of ``n`` nodes.

    Args:
        part: the preset and its settings.
        n: nodes.
        seeds: of the run.
        stragglers: False: as if all nodes were fast, where the preset knows slow ones.

    Raises:
        ConfigError: the preset is unknown or its settings are impossible, on their own or for ``n`` nodes.
    """
    preset = parts.build("network", part, {})
    if not stragglers and hasattr(preset, "without_stragglers"):
        preset = preset.without_stragglers()
    try:
        network: NetworkModel = preset.build(n, seeds)
    except ConfigError as error:
        raise ConfigError([parts.located("network", text) for text in error.problems]) from error
    return network


def check_compute(arm: Arm) -> None:
    """Refuse settings of ``[compute]`` that do not go with the number of nodes.

    Raises:
        ConfigError: there are such.
    """
    n, compute, problems = arm.nodes, arm.compute, []
    if compute.slow_nodes > n:
        expectation = f"is more than the {n} nodes"
        problems.append(sentence("compute.slow_nodes", compute.slow_nodes, expectation, f"use at most {n}"))
    if compute.recipients is not None and compute.recipients >= n:
        expectation = f"a node has {n - 1} others to send to"
        problems.append(
            sentence("compute.recipients", compute.recipients, expectation, f"use at most {n - 1}")
        )
    if problems:
        raise ConfigError(problems)


def check_untrained(arm: Arm) -> None:
    """Refuse what cannot be had without training.

    Raises:
        ConfigError: measured compute times, or real time.
    """
    if arm.train.mode != "none":
        return
    problems = []
    if arm.compute.time_per_round == "measured":
        expectation = 'nothing is trained with train.mode = "none", so there is nothing to measure'
        step = 'write seconds or "match_comm"'
        problems.append(sentence("compute.time_per_round", "measured", expectation, step))
    if arm.run.clock == "wall":
        expectation = (
            'messages are short with train.mode = "none", and weigh like models in emulated time only'
        )
        problems.append(sentence("run.clock", "wall", expectation, 'use clock = "virtual"'))
    if problems:
        raise ConfigError(problems)


def build_compute(
    arm: Arm, seeds: Seeds, parameters: int, volume: Callable[[], float | None]
) -> ComputeModel:
    """The compute model; its nominal time is 0 where it is yet to be measured.

    Args:
        arm: sound as far as ``check_compute`` and ``build_network`` look.
        seeds: of the run.
        parameters: d.
        volume: whole models that a node sends per round, asked for only where it matters.

    Raises:
        ConfigError: the network has no rate that computing could match, the volume is unknown, or the run
            would end before any node has finished a round.
    """
    compute = arm.compute
    factors = slow_factors(
        arm.nodes, seeds, count=compute.slow_nodes, factor=compute.slow_factor, which=compute.slow_which
    )
    nominal_ns = _nominal_ns(arm, seeds, parameters, volume)
    limit_s = arm.run.time_limit_s
    first_s = nominal_ns * (1 - compute.jitter) / NS_PER_S
    if limit_s is not None and arm.run.clock == "virtual" and limit_s < first_s:
        expectation = f"no node would finish a local round, which takes {nominal_ns / NS_PER_S:g} s"
        raise ConfigError(sentence("run.time_limit_s", limit_s, expectation, "use a longer time"))
    return ComputeModel(nominal_ns=nominal_ns, factors=factors, jitter=compute.jitter, seeds=seeds)


def _nominal_ns(arm: Arm, seeds: Seeds, parameters: int, volume: Callable[[], float | None]) -> int:
    given = arm.compute.time_per_round
    if given == "measured":
        return 0
    if not isinstance(given, str):
        return max(1, round(given * NS_PER_S))
    sent = arm.compute.recipients or volume()
    if not sent:
        lack = "sends nothing" if sent == 0 else "does not tell how many models a node sends"
        expectation = f"algorithm {shown(arm.algorithm.name)} {lack}"
        raise ConfigError(sentence("compute.recipients", None, expectation, "add for example recipients = 6"))
    model = build_network(arm.network, arm.nodes, seeds, stragglers=False)
    if model.unlimited or fast_rate_bps(model) == float("inf"):
        expectation = f"network {shown(arm.network.name)} has senders of unlimited rate, so nothing to match"
        step = 'write seconds: compute.time_per_round = 1.0, or use a network with rates such as "star"'
        raise ConfigError(sentence("compute.time_per_round", given, expectation, step))
    if arm.compute.match_comm == "nominal":
        return match_nominal_ns(model, volume=sent, parameters=parameters)
    return _calibrated_ns(
        network=arm.network.model_dump_json(),
        n=arm.nodes,
        seeds=seeds,
        volume=sent,
        parameters=parameters,
        fragments=arm.fragments.count,
    )


@lru_cache(maxsize=256)  # one process composes the same run several times
def _calibrated_ns(
    *, network: str, n: int, seeds: Seeds, volume: float, parameters: int, fragments: int
) -> int:
    model = build_network(Part.model_validate_json(network), n, seeds, stragglers=False)
    return match_calibrated_ns(model, volume=volume, parameters=parameters, fragments=fragments, seeds=seeds)
