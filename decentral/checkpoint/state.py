"""What a checkpoint keeps of an object: all its attributes but those that it was made with."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
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
        """A copy of the state, which later changes of this object do not reach."""
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
    """A copy of containers and arrays, however deep; what is not changed in place is shared."""
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: snapshot(each) for key, each in value.items()}
    if type(value) in (list, deque):
        return type(value)(map(snapshot, value))
    return value.copy() if isinstance(value, set) else value


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
