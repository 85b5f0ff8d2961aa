"""An experiment and many ways to get it wrong, one at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass

HERE = "tests.unit.example_parts"
BASE = f"""
name = "base"
nodes = 16
seeds = [1, 2]
algorithm = "mosaic"
topology = {{ name = "regular", degree = 4 }}
fragments = {{ count = 2 }}
[data]
name = "{HERE}:Line"
partition = {{ name = "dirichlet", alpha = 0.5 }}
[train]
lr = 0.05
batch = 8
local_steps = 8
[run]
max_rounds = 60
[[arm]]
name = "first"
[[arm]]
name = "second"
"""


@dataclass(frozen=True)
class Mistake:
    """One mistake in ``BASE`` and what the refusal must name.

    Args:
        id: what is wrong.
        key: key path in the sentence.
        value: value in the sentence.
        overrides: ``--set`` flags that make it.
        old: text of the file that makes way for ``new``; a regular expression.
        new: its replacement; with an empty ``old`` it goes to the end of the file.
        step: words of the next step.
        rates: text of the file ``rates.json`` beside the experiment.
    """

    id: str
    key: str
    value: str
    overrides: tuple[str, ...] = ()
    old: str = ""
    new: str = ""
    step: str = ""
    rates: str = ""

    def text(self) -> str:
        """The file."""
        if not self.old:
            return BASE + self.new
        changed, count = re.subn(self.old, lambda _: self.new, BASE, count=1)
        assert count == 1
        return changed


def by_set(id: str, assignment: str, key: str = "", value: str = "", step: str = "") -> Mistake:
    """A mistake made on the command line; its key and value are those of the assignment unless given."""
    left, _, right = assignment.partition("=")
    return Mistake(id, key or left, value or right, (assignment,), step=step)


def of_star(id: str, setting: str, step: str = "") -> Mistake:
    """A mistake in a setting of the network ``star``."""
    left, _, right = setting.partition("=")
    return Mistake(id, f"network.{left}", right, ("network=star", f"network.{setting}"), step=step)


def in_rates(id: str, rates: str, value: str, step: str = "") -> Mistake:
    """A mistake in a file of rates and latencies for 4 nodes; ``value`` is what the sentence says of it."""
    overrides = ("nodes=4", "topology.degree=2", "network={name='file', path='rates.json'}")
    return Mistake(id, "network.path", value, overrides, step=step, rates=rates)


MISTAKES = [
    # unknown keys
    by_set("unknown key at the top", "topolgy=1", step="did you mean topology?"),
    by_set("key of another table", "lr=1", step="did you mean train.lr?"),
    by_set("singular of seeds", "seed=1", step="did you mean seeds?"),
    by_set("unknown key in train", "train.local_step=1", step="did you mean train.local_steps?"),
    by_set("unknown key in run", "run.max_round=1", step="did you mean run.max_rounds?"),
    by_set("unknown key in evaluate", "evaluate.sample=1", step="did you mean evaluate.samples?"),
    by_set("unknown key in compute", "compute.speed=1", step="compute.time_per_round"),
    by_set("unknown key in fragments", "fragments.k=1", step="fragments.count"),
    by_set("unknown key of the topology", "topology.degre=1", step="did you mean topology.degree?"),
    by_set("unknown key of the task", "data.flip=1", step="data.rows"),
    by_set("unknown key of the partitioner", "data.partition.aplha=1", step="data.partition.alpha"),
    by_set("unknown key of the algorithm", "algorithm.omega=1", step="remove"),
    by_set(
        "name of the paper",
        'algorithm={name="divshare", recipients=4, omega=0.1}',
        "algorithm.omega",
        "0.1",
        "use fragments.count = ceil(1 / Omega)",
    ),
    Mistake("unknown key in an arm", "trian", "{lr = 1}", new="trian.lr = 1", step="did you mean train?"),
    Mistake("seeds of one arm", "arm.seeds", "[1]", new="seeds = [1]", step="top of the file"),
    Mistake("settings of another part", "topology.degree", "4", old='"regular"', new='"ring"', step="remove"),
    by_set("injected setting", "topology.n=4", step="set that instead"),
    by_set("a deadline for nothing", "run.failure_deadline_s=5.0", step="add that key or remove this one"),
    # wrong types
    by_set("string for an integer", 'nodes="16"', step="remove the quotes"),
    by_set("float for an integer", "nodes=16.0"),
    by_set("bool for an integer", "train.batch=true"),
    by_set("bool for a float", "train.lr=true"),
    by_set("string for a float", 'train.lr="0.1"', step="remove the quotes"),
    by_set("integer for a bool", "run.save_models=1"),
    by_set("string for a bool", 'run.save_models="false"', step="remove the quotes"),
    by_set("integer for a string", "name=3"),
    by_set("list for a number", "run.max_rounds=[1]"),
    by_set("table for a number", "nodes.count=3", "nodes", "{count = 3}"),
    by_set("number for a table", "train=3", step="lr, batch"),
    by_set("number for a part", "algorithm=3", step="NAME"),
    by_set("number for seeds", "seeds=1", step="[1, 2, 3]"),
    by_set("string among seeds", 'seeds=[1, "2"]', "seeds[1]", '"2"'),
    by_set("bool among seeds", "seeds=[true]", "seeds[0]", "true"),
    by_set("date", "data.rows=2024-01-01"),
    by_set("wrong type in a part", "topology.dynamic=3"),
    Mistake(
        "arm is one table",
        "arm",
        "{name = ",
        old=r"(?s)\[\[arm\]\].*",
        new='[arm]\nname = "x"',
        step="[[arm]]",
    ),
    # impossible values
    by_set("one node", "nodes=1"),
    by_set("no nodes", "nodes=0"),
    Mistake(
        "odd sum of degrees", "topology: regular", "degree=3", ("nodes=15", "topology.degree=3"), step="use"
    ),
    by_set("degree beyond the nodes", "topology.degree=16", "topology: regular", "degree=16"),
    by_set("no degree", "topology.degree=0"),
    by_set("more fragments than parameters", "fragments.count=11", step="at most 10"),
    by_set("no fragments", "fragments.count=0"),
    by_set("unknown fragment map", 'fragments.map="per_tenor"', step="did you mean per_tensor?"),
    by_set("fragments of whole models", "algorithm=epidemic", "fragments.count", "2", step="1 fragment"),
    by_set("negative seconds", "run.liveness_timeout_s=-1"),
    by_set("no seconds", "compute.time_per_round=0"),
    by_set("infinite seconds", "compute.time_per_round=inf"),
    by_set("infinite timeout", "run.liveness_timeout_s=-inf"),
    by_set("zero rounds", "run.max_rounds=0"),
    by_set("never tested", "run.test_after=0"),
    by_set("learning rate nan", "train.lr=nan"),
    by_set("negative learning rate", "train.lr=-0.1"),
    by_set("empty batch", "train.batch=0"),
    by_set("no local steps", "train.local_steps=0"),
    by_set("momentum of one", "train.momentum=1.0"),
    by_set("negative weight decay", "train.weight_decay=-1"),
    by_set("alpha of zero", "data.partition.alpha=0"),
    by_set("alpha nan", "data.partition.alpha=nan"),
    by_set("all rows for validation", "data.validation=1.0"),
    by_set("validation without rows", "evaluate.split=validation", step="data.validation"),
    by_set("unknown split", 'evaluate.split="tset"', step="did you mean test?"),
    by_set("unknown scope", 'evaluate.scope="node"', step="global"),
    by_set("local scope without owners", "evaluate.scope=local"),
    by_set("no samples", "evaluate.samples=0"),
    by_set("unknown init", 'run.init="commom"'),
    by_set("init without number", 'run.init="perturb()"'),
    by_set("init with noise of zero", 'run.init="perturb(0)"'),
    by_set("init with an odd number", 'run.init="perturb(1.2.3)"'),
    by_set("local steps and epochs", "train={local_steps = 1, full_epochs = 2}", "train.full_epochs", "2"),
    Mistake("neither local steps nor epochs", "train.local_steps", "(not set)", old="local_steps = 8"),
    by_set("repeated seeds", "seeds=[1, 2, 1]"),
    by_set("no seeds", "seeds=[]"),
    by_set("negative seed", "seeds=[-1]", "seeds[0]", "-1"),
    by_set("accuracy above one", "target=2", step="use for example 0.8"),
    by_set("negative accuracy", "target=-1", step="use for example 0.8"),
    by_set("accuracy of zero", "target=0", step="use for example 0.8"),
    Mistake(
        "distance of zero",
        "target",
        "0",
        ("target=0.0", "data={name='quadratic'}", "fragments.count=1"),
        step="1.25",
    ),
    # names
    by_set("run name with a slash", 'name="a/b"'),
    by_set("hidden run name", 'name=".hidden"'),
    by_set("run name like a flag", 'name="-rf"'),
    by_set("empty run name", 'name=""'),
    Mistake("empty arm name", "arm.name", '""', old='"second"', new='""'),
    Mistake("arm name with a slash", "arm.name", '"a/b"', old='"second"', new='"a/b"'),
    Mistake("arm name is the parent folder", "arm.name", '".."', old='"second"', new='".."'),
    Mistake("arm name with a line break", "arm.name", r'"a\nb"', old='"second"', new=r'"a\nb"'),
    Mistake("long arm name", "arm.name", '"xxxx', old='"second"', new=f'"{"x" * 81}"'),
    Mistake("two arms of one name", "arm.name", '"first"', old='"second"', new='"first"'),
    Mistake("two arms of one folder", "arm.name", '"FIRST"', old='"second"', new='"FIRST"', step="rename"),
    Mistake("arm without name", "arm.name", "(not set)", old='name = "second"'),
    # missing
    Mistake("no name", "name", "(not set)", old='name = "base"'),
    Mistake("no nodes key", "nodes", "(not set)", old="nodes = 16", step="nodes = 16"),
    Mistake("no algorithm", "algorithm", "(not set)", old='algorithm = "mosaic"', step="name"),
    Mistake("no run table", "run", "(not set)", old=r"\[run\]\nmax_rounds = 60", step="max_rounds"),
    Mistake("no degree key", "topology.degree", "(not set)", old=", degree = 4"),
    Mistake("part without name", "topology.name", "(not set)", old='name = "regular", ', step="topology = {"),
    # parts
    by_set("unknown algorithm", 'algorithm="mosiac"', "algorithm.name", step="did you mean mosaic?"),
    by_set("unknown topology", 'topology="rnig"', "topology.name", step="did you mean ring?"),
    by_set("unknown task", 'data.name="cfiar10"', step="did you mean cifar10?"),
    by_set("unknown partitioner", 'data.partition="dirichlte"', "data.partition.name", step="dirichlet"),
    by_set(
        "third-party module missing",
        "algorithm=no_lab.gossip:Rumor",
        "algorithm.name",
        '"no_lab',
        "PYTHONPATH",
    ),
    by_set(
        "third-party class missing",
        f"topology={HERE}:Piars",
        "topology.name",
        '"tests',
        "did you mean Pairs?",
    ),
    by_set("third-party class of another kind", f"algorithm={HERE}:Pairs", "algorithm.name", '"tests', "run"),
    by_set("missing data", "data.present=false", "data: line", "points.csv", step="data folder"),
    # the network
    by_set("unknown network", 'network="stars"', "network.name", step="did you mean star?"),
    by_set("number for a network", "network=3", step='network = "NAME"'),
    by_set("network without name", "network.stragglers=8", "network.name", "(not set)", step="network = {"),
    of_star("unknown key of the network", "straglers=8", step="did you mean network.stragglers?"),
    by_set("rates of the ideal network", "network={name='ideal', mode='pair'}", "network.mode", '"pair"'),
    of_star("rate of zero", "fast_mbps=0", step="use 0.001 or more"),
    of_star("negative rate", "fast_mbps=-60.0"),
    of_star("infinite rate", "fast_mbps=inf"),
    of_star("rate nan", "fast_mbps=nan"),
    of_star("rate with a unit", 'fast_mbps="60Mbps"'),
    of_star("negative latency", "latency_ms=-1", step="use 0 or more"),
    of_star("infinite latency", "latency_ms=inf"),
    of_star("negative jitter of the latency", "jitter_ms=-0.5"),
    Mistake(
        "more stragglers than nodes",
        "network: star",
        "stragglers=17",
        ("network=star", "network.stragglers=17"),
        step="at most 16",
    ),
    of_star("negative number of stragglers", "stragglers=-1"),
    of_star("half a straggler", "stragglers=0.5"),
    of_star("stragglers that are faster", "straggler_factor=0.2"),
    of_star("negative spread", "sd_mbps=-0.5"),
    of_star("unknown choice of stragglers", 'which="frist"', step="did you mean first?"),
    of_star("no transfer at a time", "concurrency=0", step="use 1 or more"),
    of_star("some transfers at a time", 'concurrency="some"'),
    of_star("half a transfer at a time", "concurrency=1.5"),
    of_star("unknown contention", 'contention="uplnk"', step="did you mean uplink?"),
    of_star("number for a flag of the network", "abort_on_flush=1"),
    of_star("negative overhead in bytes", "overhead_bytes=-600"),
    of_star("negative overhead in time", "overhead_ms=-1"),
    of_star("everything lost", "loss=1.0", step="below 1"),
    of_star("negative loss", "loss=-0.1"),
    of_star("loss that would stop a synchronous algorithm", "loss=0.1", step="asynchronous"),
    by_set("unknown mode of AWS", "network={name='aws10', mode='pairs'}", "network.mode", '"pairs"', "pair?"),
    by_set("unknown latencies of AWS", "network={name='aws10', latency='rtt'}", "network.latency", '"rtt"'),
    by_set("file without path", "network=file", "network.path", "(not set)"),
    by_set("absent file of rates", "network={name='file', path='no.json'}", "network.path", '"no.json"'),
    by_set("file of rates of no known kind", "network={name='file', path='a.xml'}", "network.path", ".toml"),
    in_rates("file of rates is no JSON", "{", "cannot be read", step="correct"),
    in_rates("file of rates is a list", "[1]", "[1]", step="uplink_mbps"),
    in_rates("file of no rates", "{}", "no table of rates"),
    in_rates(
        "unknown key in a file of rates", '{"uplnk_mbps": 1}', '"uplnk_mbps"', "did you mean uplink_mbps"
    ),
    in_rates("rates of three nodes", '{"uplink_mbps": [1, 1, 1]}', "3 entries", step="nodes = 3"),
    in_rates("a rate of zero in a file", '{"downlink_mbps": [1, 1, 0, 1]}', "downlink_mbps[2] = 0"),
    in_rates("a string among rates", '{"uplink_mbps": [1, "1", 1, 1]}', 'uplink_mbps[1] = "1"'),
    in_rates("a rate nan in a file", '{"uplink_mbps": NaN}', "uplink_mbps = nan", step="0.001"),
    in_rates("three rows", f'{{"pair_mbps": [{", ".join(["[1, 1, 1, 1]"] * 3)}]}}', "3 entries", step="4"),
    in_rates(
        "matrix not square",
        f'{{"pair_mbps": [{", ".join(["[1, 1, 1]"] * 4)}]}}',
        "pair_mbps[0] has 3 entries",
    ),
    in_rates("row that is no list", '{"latency_ms": [[0, 1, 1, 1], 1, 2, 3]}', "latency_ms[1] = 1"),
    in_rates("negative latency in a file", '{"latency_ms": -1}', "latency_ms = -1", step="from 0"),
    in_rates(
        "latency nan in a matrix",
        f'{{"latency_ms": [[0, 1, NaN, 1], {", ".join(["[0, 0, 0, 0]"] * 3)}]}}',
        "latency_ms[0][2] = nan",
    ),
    # the end of a run and the cost of computing
    Mistake("neither rounds nor a time limit", "run.max_rounds", "(not set)", old="max_rounds = 60"),
    by_set("time limit of zero", "run.time_limit_s=0"),
    by_set("negative time limit", "run.time_limit_s=-800.0"),
    by_set("infinite time limit", "run.time_limit_s=inf"),
    by_set("time limit with a unit", 'run.time_limit_s="800s"'),
    by_set("time limit before the first round ends", "run.time_limit_s=0.5", step="longer"),
    by_set("unknown clock", 'run.clock="real"', step='"virtual"'),
    by_set("unknown time per round", 'compute.time_per_round="match_com"', step="match_comm"),
    by_set("negative time per round", "compute.time_per_round=-1.5"),
    by_set("bool for a time per round", "compute.time_per_round=true"),
    by_set(
        "time of an ideal network to match",
        "compute.time_per_round=match_comm",
        step="compute.time_per_round = 1.0",
    ),
    by_set("unknown way to match", 'compute.match_comm="calibrate"', step="did you mean calibrated?"),
    by_set("no recipients", "compute.recipients=0"),
    by_set("more recipients than others", "compute.recipients=16", step="at most 15"),
    by_set("more slow nodes than nodes", "compute.slow_nodes=17", step="at most 16"),
    by_set("negative number of slow nodes", "compute.slow_nodes=-1"),
    by_set("slow nodes that are faster", "compute.slow_factor=0.5"),
    by_set("unknown choice of slow nodes", 'compute.slow_which="randon"', step="did you mean random?"),
    by_set("rounds of no time", "compute.jitter=1.0", step="below 1"),
    by_set("negative jitter", "compute.jitter=-0.1"),
    # algorithms and what they need
    Mistake(
        "no graph",
        "topology",
        "(not set)",
        old=r"topology = \{.*?\}\n",
        step='topology = { name = "regular"',
    ),
    by_set("a graph that no arm can use", f"algorithm={HERE}:Rumor", "topology", '"regular"', "remove"),
    Mistake(
        "a graph that its own arm cannot use",
        "topology",
        '"regular"',
        (f"arm.second.algorithm={HERE}:Rumor", "arm.second.topology.dynamic=true"),
        step="remove",
    ),
    by_set(
        "more recipients than others in an algorithm",
        f'arm.second.algorithm={{name="{HERE}:Rumor", recipients=16}}',
        "algorithm.recipients",
        "16",
        "at most 15",
    ),
    Mistake(
        "odd number of nodes for two roles",
        "algorithm: rumor",
        "n=15",
        ("nodes=15", f"arm.second.algorithm={HERE}:Rumor"),
        step="n = 16",
    ),
    Mistake(
        "a volume that nobody knows",
        "compute.recipients",
        "(not set)",
        (
            f"algorithm={HERE}:Whisper",
            "fragments.count=1",
            "network=star",
            "compute.time_per_round=match_comm",
        ),
        old=r"topology = \{.*?\}\n",
        step="recipients = 6",
    ),
    # the file and the flags
    Mistake("no TOML", "experiment", "line 3", old="nodes = 16", new="nodes 16", step="correct that line"),
    Mistake(
        "a key twice", "experiment", "line 4", old="seeds", new="nodes = 2\nseeds", step="correct that line"
    ),
    Mistake("flag without =", "--set", '"train.lr"', overrides=("train.lr",), step="train.lr=0.05"),
    Mistake("flag without key", "--set", '"=3"', overrides=("=3",), step="train.lr=0.05"),
    Mistake(
        "flag for no arm", "--set arm.third", "{nodes = 4}", overrides=("arm.third.nodes=4",), step="first"
    ),
    Mistake("flag for an arm alone", "--set", '"arm.first=3"', overrides=("arm.first=3",), step="key.path"),
]
