"""Values of a checkpoint as bytes: msgpack for what is plain; arrays beside it, each once.

Only the classes that are listed here can be written or made when reading; nothing is ever evaluated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack
import numpy as np

from decentral.arrays import AnyArray
from decentral.errors import CheckpointError
from decentral.messages import Kind, Message
from decentral.network.flows import Flow
from decentral.network.model import Arrival, Item, Transfer
from decentral.speech import Answer, Notice, Put, Role, Served, Speech, Stop, Totals
from decentral.standing import Standing

_TUPLE, _DEQUE, _SET, _ARRAY, _RECORD, _FLOW = range(6)
_TELLINGS: tuple[Any, ...] = (Answer, Notice, Stop, Served, Totals)
_TUPLES: tuple[Any, ...] = (*_TELLINGS, Arrival, Item, Message, Put, Speech, Transfer)
_NUMBERS = (Kind, Role)
_NAMED: dict[str, Any] = {cls.__name__: cls for cls in (*_TUPLES, *_NUMBERS, Standing)}


class Encoder:
    """Packs values; ``arrays`` are what they refer to, in order, little-endian and contiguous.

    Transfers in progress that occur more than once in one value are one object again when it is read.
    """

    def __init__(self) -> None:
        self.arrays: list[AnyArray] = []
        self._numbers: dict[tuple[int, int, str], int] = {}
        self._flows: dict[int, int] = {}

    def pack(self, value: Any) -> bytes:
        """``value`` as msgpack.

        Raises:
            CheckpointError: it holds something that cannot be kept; names its type.
        """
        packed: bytes = msgpack.packb(value, default=self._extended, strict_types=True)
        return packed

    def _extended(self, value: Any) -> Any:
        kind = type(value)
        code = packed = None
        if kind is tuple:
            code, packed = _TUPLE, self.pack(list(value))
        elif kind in _TUPLES:
            code, packed = _RECORD, self.pack([kind.__name__, *value])
        elif kind in _NUMBERS:
            code, packed = _RECORD, self.pack([kind.__name__, int(value)])
        elif kind is Standing:
            parts = [getattr(value, each.name) for each in fields(value)]
            code, packed = _RECORD, self.pack([kind.__name__, *parts])
        elif kind is Flow:
            code, packed = _FLOW, self._flow(value)
        elif kind is deque:
            code, packed = _DEQUE, self.pack(list(value))
        elif kind is set:
            code, packed = _SET, self.pack(sorted(value))
        elif isinstance(value, np.ndarray):
            code, packed = _ARRAY, self._array(value)
        if code is not None:
            return msgpack.ExtType(code, packed)
        if isinstance(value, dict):
            return dict(value)
        if isinstance(value, np.generic):
            return value.item()
        raise CheckpointError(
            f"a checkpoint cannot keep {value!r} of type {kind.__qualname__}; keep numbers, texts, arrays, "
            f"messages, and lists, tuples, sets or dicts of them"
        )

    def _flow(self, flow: Flow) -> bytes:
        number = self._flows.get(id(flow))
        if number is not None:
            return self.pack([number])
        self._flows[id(flow)] = number = len(self._flows)
        return self.pack([number, *(getattr(flow, name) for name in Flow.__slots__)])

    def _array(self, array: AnyArray) -> bytes:
        little = array.dtype.newbyteorder("<")
        flat = np.ascontiguousarray(array, dtype=little)
        key = (flat.ctypes.data, flat.nbytes, little.str)
        number = self._numbers.get(key)
        if number is None or not flat.nbytes:
            number = len(self.arrays)
            self._numbers[key] = number
            self.arrays.append(flat)  # kept alive, so that its address stays its own
        return self.pack([number, little.str, list(array.shape)])


class Decoder:
    """Unpacks what an ``Encoder`` packed.

    Args:
        arrays: the bytes of each of its ``arrays``.
    """

    def __init__(self, arrays: Sequence[memoryview]) -> None:
        self._buffers = arrays
        self._made: dict[int, AnyArray] = {}
        self._flows: list[Flow] = []

    def unpack(self, data: bytes | memoryview) -> Any:
        """The value; arrays are new ones, except that equal messages share theirs.

        Raises:
            CheckpointError: another version wrote it.
        """
        try:
            return msgpack.unpackb(data, ext_hook=self._hook, strict_map_key=False)
        except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
            raise CheckpointError(
                f"a checkpoint holds something unknown ({error}); resume with the version that made it, or "
                f"run again"
            ) from error

    def _hook(self, kind: int, data: bytes) -> Any:
        value: Any = msgpack.unpackb(data, ext_hook=self._hook, strict_map_key=False)
        if kind == _TUPLE:
            return tuple(value)
        if kind == _DEQUE:
            return deque(value)
        if kind == _SET:
            return set(value)
        if kind == _ARRAY:
            return self._array(*value)
        if kind == _FLOW:
            return self._flow(*value)
        if kind != _RECORD:
            raise ValueError(f"extension {kind}")
        name, *parts = value
        return _NAMED[name](*parts)

    def _array(self, number: int, dtype: str, shape: list[int]) -> AnyArray:
        """One array per number: whoever writes to it made a copy for the checkpoint, so nobody shares it."""
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = np.frombuffer(self._buffers[number], dtype=dtype).copy()
        return made.reshape(shape)

    def _flow(self, number: int, *parts: Any) -> Flow:
        if parts:
            values = dict(zip(Flow.__slots__, parts, strict=True))
            flow = Flow(values["sender"], values["item"], values["order"], values["start_ns"], values["bits"])
            for name, value in values.items():
                setattr(flow, name, value)
            self._flows.append(flow)
        return self._flows[number]
