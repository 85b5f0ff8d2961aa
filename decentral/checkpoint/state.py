"""What a checkpoint keeps of an object: all its attributes but those that it was made with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from decentral.errors import CheckpointError


class Stateful:
    """Its attributes, but for ``GIVEN``, are its state.

    What is not listed is saved: an attribute that is added and forgotten here can be too much, never too
    little.

    Attributes:
        GIVEN: names of what follows from how the object is made, or belongs to others, with blanks between.
    """

    GIVEN: ClassVar[str] = ""

    def state(self) -> dict[str, Any]:
        """A copy of the state, as ``snapshot`` makes it.

        Later changes of this object do not reach it, but for those inside objects of other classes
        (``decentral.standing.Standing``), which are shared: write such a state before this object goes on.
        """
        given = self.GIVEN.split()
        return {name: snapshot(value) for name, value in vars(self).items() if name not in given}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take on a state that an object made in the same way had; containers stay the same objects.

        Raises:
            CheckpointError: it is the state of another kind of object.
        """
        mine = vars(self)
        if differ := state.keys() ^ (mine.keys() - self.GIVEN.split()):
            raise CheckpointError(
                f"a checkpoint's {type(self).__name__} differs from this version's in "
                f"{', '.join(sorted(differ))}; resume with the version that made it, or run again"
            )
        for name, value in state.items():
            mine[name] = _filled(mine[name], value)


def snapshot(value: Any) -> Any:
    """A copy of containers and arrays, however deep; all else, as messages are, is shared."""
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: snapshot(each) for key, each in value.items()}
    if type(value) in (list, tuple, deque):
        return type(value)(map(snapshot, value))
    return value.copy() if isinstance(value, set) else value


def keepsake(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what an algorithm keeps under its names, as ``snapshot`` makes it.

    Raises:
        CheckpointError: a resumed run would find something else there; says under which name.
    """
    for name, value in values.items():
        for part in _parts(value):
            if _comes_back_otherwise(part):
                raise CheckpointError(
                    f"an algorithm keeps {name} = {value!r}: a checkpoint would not give back its "
                    f"{type(part).__name__} as it is; keep plain numbers, texts, arrays, messages, and "
                    f"lists, tuples, sets, dicts or deques (without maxlen) of them"
                )
    return {name: snapshot(value) for name, value in values.items()}


def _parts(value: Any) -> Iterator[Any]:
    """``value`` and all that is in it."""
    yield value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _parts(key)
            yield from _parts(each)
    elif isinstance(value, list | tuple | deque | set):
        for each in value:
            yield from _parts(each)


def _comes_back_otherwise(part: Any) -> bool:
    """Whether a file would change its class (``decentral.checkpoint.plain``) or its bound."""
    if isinstance(part, dict):
        return type(part) is not dict
    return isinstance(part, np.generic) or (isinstance(part, deque) and part.maxlen is not None)


def _filled(current: Any, value: Any) -> Any:
    """``current`` with ``value`` in it, where it can be changed; else ``value``."""
    if isinstance(current, Stateful):
        current.restore(value)
        return current
    if isinstance(current, dict):
        new = {key: _filled(current.get(key), each) for key, each in value.items()}
        current.clear()
        current.update(new)
        return current
    if isinstance(current, list | deque):
        current.clear()
        current.extend(value)
        return current
    if isinstance(current, set):
        current.clear()
        current.update(value)
        return current
    return value
