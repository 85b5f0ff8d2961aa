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
    """

    id: str
    key: str
    value: str
    overrides: tuple[str, ...] = ()
    old: str = ""
    new: str = ""
    step: str = ""

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
    Mistake("unknown key in an arm", "trian", "{lr = 1}", new="trian.lr = 1", step="did you mean train?"),
    Mistake("seeds of one arm", "arm.seeds", "[1]", new="seeds = [1]", step="top of the file"),
    Mistake("settings of another part", "topology.degree", "4", old='"regular"', new='"ring"', step="remove"),
    by_set("injected setting", "topology.n=4", step="set that instead"),
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
