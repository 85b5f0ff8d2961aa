"""Shakespeare: vocabulary, readers of plays and of LEAF's JSON, splits, and the LSTM against plain torch."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decentral.errors import DataError
from decentral.model import FlatModel
from decentral.partition.by_group import ByGroup
from decentral.seeding import Seeds
from decentral.tasks.base import LoadedTask, Sgd, Task, size_of
from decentral.tasks.shakespeare import LoadedShakespeare, Shakespeare, stacked_lstm
from decentral.tasks.shakespeare_text import UNKNOWN, VOCABULARY, encode, read_leaf, read_plays, speeches

PLAY = """\tA SHORT PLAY

DRAMATIS PERSONAE

ANNE\ta queen.


ACT I



SCENE I\tA room
\tof state.


\t[Enter ANNE
\tand BOB]

ANNE\tWho's   there?
\tSpeak [Aside]  now.

BOB\t|
\t|  We, both.
CAROL\t|

\t[Exit CAROL

DUKE
OF YORK\tGood\tnight.

ANNE: Farewell!

\tPROLOGUE

\tnobody says this

Boy: [Sings]

\tHeigh-ho.

DANGLING

\tStill the boy.



\tA SHORT PLAY, 2


ACT II



BOB\tMore.
"""


def decode(codes: Any) -> str:
    return "".join(VOCABULARY[code] for code in codes)


def plays_folder(folder: Path, **texts: str) -> Path:
    """A data folder with one play per keyword; each role says the given text."""
    plays = folder / "shakespeare" / "plays"
    plays.mkdir(parents=True)
    for name, text in texts.items():
        (plays / f"{name}.txt").write_text(text)
    return folder


def long_play(roles: int, characters: int, seed: int) -> str:
    """Roles that say random letters, on lines of 40."""
    draw = np.random.default_rng(seed)
    lines = ["ACT I", ""]
    for role in range(roles):
        said = "".join(draw.choice(list("abcdef gh"), characters)).replace(" ", "x")
        pieces = [said[start : start + 40] for start in range(0, characters, 40)]
        lines += [f"ROLE {role}\t{pieces[0]}", *(f"\t{piece}" for piece in pieces[1:]), ""]
    return "\n".join(lines)


def leaf_folder(folder: Path, **files: Any) -> Path:
    leaf = folder / "shakespeare" / "leaf"
    leaf.mkdir(parents=True)
    for name, content in files.items():
        (leaf / f"all_data_{name}.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
    return folder


def leaf_file(**said: str) -> dict[str, Any]:
    """What LEAF writes: every window of 80 characters and the character after it."""
    data = {
        user: {
            "x": [text[start : start + 80] for start in range(len(text) - 80)],
            "y": [text[start + 80] for start in range(len(text) - 80)],
        }
        for user, text in said.items()
    }
    return {
        "users": list(data),
        "num_samples": [len(samples["y"]) for samples in data.values()],
        "user_data": data,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and an empty cache."""
    monkeypatch.setenv("DECENTRAL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def test_vocabulary_has_ninety_two_entries_of_which_ninety_differ() -> None:
    assert (len(VOCABULARY), len(set(VOCABULARY))) == (92, 90)
    assert VOCABULARY.count("{") == VOCABULARY.count("}") == 2
    distinct = "".join(sorted(set(VOCABULARY)))
    assert decode(encode(distinct)) == distinct
    assert len(set(encode(distinct).tolist())) == 90
    assert decode(encode("a~é€\U0001f600b")) == f"a{UNKNOWN * 4}b"


def test_speeches_of_a_play() -> None:
    assert speeches(PLAY) == {
        "ANNE": "Who's there?\nSpeak now.\nFarewell!",
        "BOB": "We, both.\nMore.",
        "DUKE OF YORK": "Good night.",
        "Boy": "Heigh-ho.\nStill the boy.",
    }
    assert speeches("SONNETS\n\nFrom fairest creatures\n") == {}


def test_windows_of_plays_stay_inside_a_role(tmp_path: Path) -> None:
    files = []
    for name, (roles, characters) in {"a": (2, 300), "b": (3, 120)}.items():
        files.append(tmp_path / f"{name}.txt")
        files[-1].write_text(long_play(roles, characters, seed=len(name)))
    corpus = read_plays(files, stride=50, min_characters=81)
    texts = [text for file in files for text in speeches(file.read_text()).values()]
    assert [len(text) for text in texts] == [307, 307, 122, 122, 122]  # 40 characters a line and newlines
    expected = [
        (group, text[start : start + 81])
        for group, text in enumerate(texts)
        for start in range(0, len(text) - 80, 50)
    ]
    windows = [decode(corpus.text[start : start + 81]) for start in corpus.starts]
    assert list(zip(corpus.groups.tolist(), windows, strict=True)) == expected
    assert read_plays(files, stride=50, min_characters=200).groups.max() == 1


def test_leaf_samples_come_back_in_order_and_share_their_text(tmp_path: Path) -> None:
    said = {"ANNE": "To be, or not to be: " * 8, "BOB": "x" * 81, "CAROL": "abcdefghij" * 20}
    content = leaf_file(**said)
    # A user whose samples do not follow each other, as after LEAF's own sampling.
    for key in ("x", "y"):
        content["user_data"]["CAROL"][key] = content["user_data"]["CAROL"][key][::7]
    content["num_samples"][2] = len(content["user_data"]["CAROL"]["y"])
    data = leaf_folder(tmp_path, all=content)
    files = sorted((data / "shakespeare" / "leaf").iterdir())
    corpus = read_leaf(files, stride=1, min_characters=81)
    samples = [decode(corpus.text[start : start + 81]) for start in corpus.starts]
    expected = [
        x + y
        for user in content["users"]
        for x, y in zip(content["user_data"][user]["x"], content["user_data"][user]["y"], strict=True)
    ]
    assert samples == expected
    assert np.bincount(corpus.groups).tolist() == content["num_samples"]
    assert len(corpus.text) == len(said["ANNE"]) + 81 + 81 * content["num_samples"][2]
    every_third = read_leaf(files, stride=3, min_characters=81)
    assert np.bincount(every_third.groups).tolist() == [-(-count // 3) for count in content["num_samples"]]


def _without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


def _damaged(**change: Any) -> dict[str, Any]:
    content = copy.deepcopy(leaf_file(ANNE="a" * 90))
    content["user_data"]["ANNE"].update(change)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(leaf_file(ANNE="a" * 90))[:-40], "all_data_0.json: no complete JSON"),
        ([1, 2], "all_data_0.json: expected the keys users, num_samples, user_data"),
        (_without(leaf_file(ANNE="a" * 90), "num_samples"), "expected the keys users, num_samples"),
        ({**leaf_file(ANNE="a" * 90), "num_samples": []}, "1 users but 0 num_samples"),
        ({**leaf_file(ANNE="a" * 90), "num_samples": [9]}, "user ANNE has 10 x and 10 y instead of 9"),
        ({**leaf_file(ANNE="a" * 90), "user_data": {}}, "user ANNE has 0 x and 0 y instead of 10"),
        (_damaged(y=["a"] * 9), "user ANNE has 10 x and 9 y instead of 10"),
        (_damaged(y=["ab"] * 10), "user ANNE: expected x of 80 characters, y of one"),
        (_damaged(x=["a" * 79] * 10), "user ANNE: expected x of 80 characters, y of one"),
    ],
)
def test_damaged_leaf_files_are_refused(folder: Path, content: Any, message: str) -> None:
    leaf_folder(folder, **{"0": content})
    Shakespeare(format="leaf").check()
    with pytest.raises(DataError, match=message) as refused:
        Shakespeare(format="leaf").load()
    assert "again" in str(refused.value)


def test_a_user_in_two_leaf_files_is_refused(folder: Path) -> None:
    leaf_folder(folder, a=leaf_file(ANNE="a" * 90), b=leaf_file(ANNE="b" * 90))
    with pytest.raises(DataError, match=r"all_data_b.json: user ANNE is in all_data_a.json too"):
        Shakespeare(format="leaf").load()


@pytest.mark.parametrize(("form", "pattern"), [("plays", r"no \*.txt; put one"), ("leaf", "no all_data_")])
def test_missing_texts_are_named(folder: Path, form: Any, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern) as refused:
        Shakespeare(format=form).check()
    assert str(folder) in str(refused.value)


def test_texts_without_roles_are_refused(folder: Path) -> None:
    plays_folder(folder, sonnets="SONNETS\n\nFrom fairest creatures\n", tiny=PLAY)
    with pytest.raises(DataError, match="no role says 81 characters in 2 files"):
        Shakespeare().load()


def test_shapes_have_the_published_sizes_and_those_of_the_module() -> None:
    assert size_of(Shakespeare().shapes()) == 2_683_708
    assert size_of(Shakespeare(head="last").shapes()) == 823_100
    for task in (Shakespeare(), Shakespeare(head="last")):
        assert isinstance(task, Task)
        module = stacked_lstm(task.head)
        assert tuple((name, tuple(value.shape)) for name, value in module.named_parameters()) == task.shapes()


def load_small(folder: Path) -> LoadedShakespeare:
    """Nine roles of two plays, 14 samples each: 126 samples.

    No fixture: pytest would hold its mapped files until after the check for leaks.
    """
    plays_folder(folder, a=long_play(4, 210, seed=1), b=long_play(5, 210, seed=2))
    task = Shakespeare(stride=10, head="last")
    task.load()
    return task.load()  # the second time from the cache


def test_every_thirtieth_sample_is_tested(folder: Path) -> None:
    loaded = load_small(folder)
    assert isinstance(loaded, LoadedTask)
    assert [loaded.rows(split) for split in ("train", "test")] == [121, 5]
    tested = loaded.local_rows("test", np.arange(121))
    assert np.array_equal(tested, np.arange(5))
    groups = loaded.examples.groups
    assert groups is not None
    assert np.unique(groups).tolist() == list(range(9))
    # Samples 0, 30, 60, 90, 120 belong to roles 0, 2, 4, 6, 8.
    assert loaded.local_rows("test", np.flatnonzero(groups == 4)).tolist() == [2]
    assert loaded.local_rows("test", np.flatnonzero(groups == 5)).tolist() == []
    shards = ByGroup().split(loaded.examples, 3, Seeds(1).rng("partition"))
    together = np.concatenate([loaded.local_rows("test", shard) for shard in shards])
    assert np.array_equal(np.sort(together), np.arange(5))


def test_labels_are_the_characters_to_predict(folder: Path) -> None:
    """With test rows taken out, the training labels are still those of the texts."""
    loaded = load_small(folder)
    texts = [text for name in "ab" for text in _texts(folder, name)]
    following = [text[start + 80] for text in texts for start in range(0, len(text) - 80, 10)]
    labels = loaded.examples.labels
    assert labels is not None
    kept = [following[sample] for sample in loaded._splits["train"]]
    assert decode(labels) == "".join(kept)


def _texts(folder: Path, name: str) -> list[str]:
    return list(speeches((folder / "shakespeare" / "plays" / f"{name}.txt").read_text()).values())


@pytest.mark.parametrize("head", ["all", "last"])
def test_flat_training_is_torch_training(folder: Path, head: Any) -> None:
    """One step on the whole shard against the same module under autograd and torch.optim.SGD."""
    plays_folder(folder, a=long_play(2, 205, seed=1))
    task = Shakespeare(stride=40, head=head)
    loaded = task.load()
    shard = np.array([0, 2, 3])
    start = loaded.initial(3)
    learner = loaded.learner(shard, Sgd(lr=0.5, batch=3))
    assert not learner.x.any()
    learner.x[:] = start
    loss = learner.train(1, Seeds(1).rng("batch"))

    twin = FlatModel(lambda: stacked_lstm(head), task.shapes())
    twin.load(start)
    module = stacked_lstm(head)
    module.load_state_dict(twin.state_dict())
    samples = loaded._splits["train"][shard]
    text, starts = loaded._corpus.text, loaded._corpus.starts
    windows = torch.tensor(np.stack([text[starts[s] : starts[s] + 80] for s in samples]).astype(np.int64))
    following = torch.tensor([int(text[starts[s] + 80]) for s in samples])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    expected = torch.nn.functional.cross_entropy(module(windows), following)
    torch.autograd.backward(expected)
    optimizer.step()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    twin.from_state_dict(module.state_dict())
    np.testing.assert_allclose(learner.x, twin.x, rtol=1e-4, atol=1e-6)
    assert np.abs(learner.x - start).max() > 1e-3


def test_scores_are_means_over_samples(folder: Path) -> None:
    """A zero model finds all 92 characters equally likely; a bias on one character decides for it."""
    loaded = load_small(folder)
    x = np.zeros(823_100, dtype=np.float32)
    scores = loaded.evaluate(x, "train")
    assert scores["loss"] == pytest.approx(np.log(92), rel=1e-5)
    x[823_100 - 92 + VOCABULARY.index("c")] = 5.0
    samples = loaded._splits["train"]
    following = [VOCABULARY[loaded._corpus.text[loaded._corpus.starts[s] + 80]] for s in samples]
    assert 0 < following.count("c") < len(samples)
    assert loaded.evaluate(x, "train")["acc"] == pytest.approx(following.count("c") / len(samples))
    one = following.index("c")
    assert loaded.evaluate(x, "train", np.array([one]))["acc"] == 1.0


def test_initial_models_follow_the_seed(folder: Path) -> None:
    loaded = load_small(folder)
    assert np.array_equal(loaded.initial(1), loaded.initial(1))
    assert not np.array_equal(loaded.initial(1), loaded.initial(2))


@pytest.fixture
def real_plays(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the plays, with a cache that this test has for itself."""
    plays = data_folder / "shakespeare" / "plays"
    if not (plays / "hamlet.txt").is_file():
        pytest.skip("DECENTRAL_DATA does not hold shakespeare/plays")
    monkeypatch.setenv("DECENTRAL_CACHE", str(tmp_path))
    return plays


def test_roles_of_hamlet(real_plays: Path) -> None:
    said = speeches((real_plays / "hamlet.txt").read_text())
    assert 30 <= len(said) <= 40
    assert max(said, key=lambda role: len(said[role])) == "HAMLET"
    assert "To be, or not to be: that is the question:" in said["HAMLET"]
    assert said["FRANCISCO"].startswith("Nay, answer me: stand, and unfold yourself.\nBernardo?\n")
    assert not any(mark in text for text in said.values() for mark in "[]|\t")


def test_the_plays_give_plausible_counts(real_plays: Path) -> None:
    """LEAF counts 1,129 roles; thirty-seven plays hold about 4.3 million spoken characters."""
    with_roles = [file for file in real_plays.glob("*.txt") if speeches(file.read_text())]
    assert len(with_roles) == 37
    loaded = Shakespeare().load()
    groups = loaded.examples.groups
    assert groups is not None
    assert 1_000 <= len(np.unique(groups)) <= 1_300
    assert 45_000 <= loaded.rows("train") <= 55_000
    assert loaded.rows("test") == -(-(loaded.rows("train") + loaded.rows("test")) // 30)
    assert 4_000_000 <= len(loaded._corpus.text) <= 4_500_000
    # Nothing the plays say lies outside the vocabulary.
    assert not (loaded._corpus.text == VOCABULARY.index(UNKNOWN)).any()
    counts = [
        len(np.unique(groups[shard]))
        for shard in ByGroup(shuffle=True).split(loaded.examples, 96, Seeds(1).rng("partition"))
    ]
    assert max(counts) - min(counts) <= 1
