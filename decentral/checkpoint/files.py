"""One member's checkpoint file: written whole or not at all, and verified before anything of it is used.

::

    magic     8 bytes
    lengths   version 4 bytes, then of body and table 8 bytes each; little-endian
    body      the value (decentral.checkpoint.plain)
    table     msgpack list: length of every array in bytes
    arrays    their raw little-endian bytes
    digest    BLAKE2b over all before, 32 bytes
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from decentral.checkpoint.plain import Decoder, Encoder
from decentral.disk import make_synced, replace_synced, unwritable
from decentral.errors import CheckpointError

MAGIC = b"\x93DCKPT\r\n"
FORMAT_VERSION = 1
DIGEST_BYTES = 32
REMEDY = ", or remove the checkpoint table"
"""What else may be done where a checkpoint cannot be written."""
_LENGTHS = struct.Struct("<IQQ")


class Written(NamedTuple):
    """A file that is on the disk.

    Attributes:
        name: in its checkpoint's folder.
        nbytes: its length.
        digest: BLAKE2b over its contents before the digest at its end, in hexadecimal digits.
    """

    name: str
    nbytes: int
    digest: str


def write(path: Path, value: Any) -> Written:
    """Write ``value``; after this returns the file survives a power cut.

    Raises:
        PreflightError: the file cannot be written; names it.
        CheckpointError: ``value`` holds something that cannot be kept.
    """
    encoder = Encoder()
    body = encoder.pack(value)
    table: bytes = msgpack.packb([array.nbytes for array in encoder.arrays])
    head = MAGIC + _LENGTHS.pack(FORMAT_VERSION, len(body), len(table))
    arrays: list[memoryview] = [array.data.cast("B") for array in encoder.arrays if array.nbytes]
    pieces: list[bytes | memoryview] = [head, body, table, *arrays]
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    try:
        make_synced(path.parent)
        replace_synced(path, [*pieces, digest.digest()])
    except OSError as error:
        raise unwritable(path, error, REMEDY) from error
    return Written(path.name, sum(map(len, pieces)) + DIGEST_BYTES, digest.hexdigest())


def read(path: Path, expected: Written | None = None) -> Any:
    """The value that was written to ``path``.

    Args:
        path: the file.
        expected: what its checkpoint says of it.

    Raises:
        CheckpointError: it is missing, damaged, half written or another file than ``expected``; says which.
    """
    data = memoryview(checked(path, expected))
    version, body_bytes, table_bytes = _LENGTHS.unpack_from(data, len(MAGIC))
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this program reads {FORMAT_VERSION}; resume with the version "
            f"that wrote it"
        )
    start = len(MAGIC) + _LENGTHS.size
    body, table = data[start : start + body_bytes], data[start + body_bytes :][:table_bytes]
    arrays = _cut(data[start + body_bytes + table_bytes : -DIGEST_BYTES], msgpack.unpackb(table))
    return Decoder(list(arrays)).unpack(body)


def checked(path: Path, expected: Written | None = None) -> bytes:
    """The bytes of a checkpoint's file, which are those that were written.

    Raises:
        CheckpointError: as ``read``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if expected is not None and len(data) != expected.nbytes:
        raise CheckpointError(f"{path}: has {len(data)} bytes, expected {expected.nbytes}: it is not whole")
    if len(data) < len(MAGIC) + _LENGTHS.size + DIGEST_BYTES or not data.startswith(MAGIC):
        raise CheckpointError(f"{path}: its {len(data)} bytes are no checkpoint file, or only its beginning")
    digest = hashlib.blake2b(memoryview(data)[:-DIGEST_BYTES], digest_size=DIGEST_BYTES)
    if digest.digest() != data[-DIGEST_BYTES:]:
        raise CheckpointError(f"{path}: is damaged: its checksum does not fit its contents")
    if expected is not None and digest.hexdigest() != expected.digest:
        raise CheckpointError(f"{path}: is a file of another checkpoint: another checksum than its list says")
    return data


def _cut(data: memoryview, lengths: list[int]) -> Iterator[memoryview]:
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length
