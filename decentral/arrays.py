"""Array types used in every signature, and memory that tensor kernels like."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
AnyArray: TypeAlias = NDArray[Any]

_ALIGNMENT_BYTES = 64


def aligned(size: int) -> FloatArray:
    """A zeroed float32 vector whose first element lies on a 64-byte boundary.

    Vector kernels may choose another path for another alignment; a fixed one keeps the inline run
    and the run on processes equal to the bit.
    """
    raw = np.zeros(size * 4 + _ALIGNMENT_BYTES, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT_BYTES
    return raw[start : start + size * 4].view(np.float32)
