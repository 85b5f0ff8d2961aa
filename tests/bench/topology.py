"""What a node's graphs cost per round, and networkx's random regular graphs of the same size.

    python tests/bench/topology.py

prints one JSON line per topology and size. A round is what a node process does in one: draw the graphs of
all fragments and read its own targets and sources of each. Targets for ``regular``: 400 us at n = 60,
degree 4, K = 16, and 60 us at n = 16, degree 4, K = 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from decentral.seeding import Seeds
from decentral.topology import Topology
from topologies.epidemic import Epidemic
from topologies.regular import Regular
from topologies.vn_regular import VnRegular

SIZES = ((16, 4, 1), (60, 4, 16), (60, 8, 16), (60, 8, 1), (1000, 8, 1))


def best_us(work: Callable[[int], object], rounds: int, repeats: int) -> float:
    """Microseconds of CPU per round, the least of some repeats; each sees rounds of its own."""
    took = []
    for repeat in range(repeats):
        start = time.process_time()
        for t in range(repeat * rounds, (repeat + 1) * rounds):
            work(t)
        took.append((time.process_time() - start) / rounds * 1e6)
    return min(took)


def read_own_rows(topology: Topology, fragments: int) -> Callable[[int], None]:
    """One node's use of round t."""

    def work(t: int) -> None:
        for k in range(fragments):
            topology.targets(0, t, k)
            topology.sources(0, t, k)

    return work


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=64, help="rounds per repeat")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    seeds = Seeds(1)
    for n, degree, fragments in SIZES:
        few = max(1, options.rounds // 8)
        graph_us = best_us(
            lambda t, n=n, d=degree: nx.random_regular_graph(d, n, seed=t), few, options.repeats
        )
        for kind in (Regular, Epidemic, VnRegular):
            topology = kind(n=n, seeds=seeds, fragments=fragments, degree=degree)
            round_us = best_us(read_own_rows(topology, fragments), options.rounds, options.repeats)
            line: dict[str, object] = {"topology": kind.__name__, "n": n, "degree": degree, "K": fragments}
            line["round_us"] = round(round_us, 1)
            line["networkx_regular_us"] = round(graph_us * fragments, 1)
            line["ratio"] = round(round_us / (graph_us * fragments), 3)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
