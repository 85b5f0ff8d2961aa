"""Where every node of a host notes how far it is: shared memory, so that noting costs nothing.

The agent reads it a few times a second for the display, and once more when a node ends, so that the round at
which it died is exact however it died.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable

from decentral.tasks.base import Scores
from launch.kernel import give_back_free_memory

_SLOT = struct.Struct("=qd")


class Board:
    """One slot of (finished rounds, last training loss) per member; made before the fork, written after it.

    Args:
        members: number of slots.
    """

    def __init__(self, members: int) -> None:
        self._memory = mmap.mmap(-1, members * _SLOT.size)
        for slot in range(members):
            self.note(slot, 0, None)

    def note(self, slot: int, round_: int, train_loss: float | None) -> None:
        """Written by the member that owns ``slot`` only."""
        _SLOT.pack_into(
            self._memory, slot * _SLOT.size, round_, math.nan if train_loss is None else train_loss
        )

    def read(self, slot: int) -> tuple[int, float | None]:
        """Finished rounds and loss; the two may be of neighboring rounds."""
        round_, loss = _SLOT.unpack_from(self._memory, slot * _SLOT.size)
        return round_, None if math.isnan(loss) else loss

    def close(self) -> None:
        """Unmap it here; members keep theirs."""
        self._memory.close()


class MemberListener:
    """Notes rounds on the host's board and tells the agent of evaluations."""

    def __init__(self, tell: Callable[..., None], board: Board, slot: int) -> None:
        self._tell = tell
        self._board = board
        self._slot = slot

    def progress(self, node: int, round_: int, train_loss: float | None) -> None:
        """A local round is finished."""
        self._board.note(self._slot, round_, train_loss)

    def evaluated(self, node: int, round_: int, scores: Scores) -> None:
        """An evaluation is finished."""
        # Not after every round: it saves 3 MB a node, and page faults then cost a tenth of the speed.
        give_back_free_memory()
        self._tell("evaluated", node, round_, dict(scores))
