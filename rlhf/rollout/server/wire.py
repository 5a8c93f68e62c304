"""Messages between trainer and engine: a JSON header and raw bytes, each with its length, over a stream socket."""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PROTOCOL = 2  # raised whenever a message changes
MAGIC = b"RLRO"
MAX_HEADER = 256 * 2**20  # bytes; a larger number is not the length of a header
TICK_S = 0.2
_PREFIX = struct.Struct("<4sIQ")  # magic, bytes of the header, bytes of the payload


class ClosedError(Exception):
    """The other side closed the connection."""


class WireError(Exception):
    """The bytes received are no message of this protocol."""


@dataclass(frozen=True, slots=True)
class Frame:
    """kind: what is asked or answered; fields: its arguments, as JSON holds them; payload: arrays as raw bytes."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def arrays(self, dtype: Any, lengths: Sequence[int], *, offset: int = 0) -> list[npt.NDArray[Any]]:
        """The payload from byte `offset` on as arrays of these lengths."""
        joined = np.frombuffer(self.payload, dtype=dtype, count=sum(lengths), offset=offset)
        return np.split(joined, np.cumsum(lengths)[:-1]) if lengths else []


def joined(arrays: Sequence[npt.NDArray[Any]], dtype: Any) -> bytes:
    """Arrays one after another, as `Frame.arrays` reads them."""
    return b"".join(np.ascontiguousarray(array, dtype=dtype).tobytes() for array in arrays)


class Channel:
    """One end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Sends a message. Raises: ClosedError."""
        header = json.dumps({"kind": kind, **fields}).encode()
        try:
            self._connection.sendall(_PREFIX.pack(MAGIC, len(header), len(payload)) + header)
            self._connection.sendall(payload)
        except OSError as error:
            raise ClosedError(str(error)) from error

    def receive(self, tick: Callable[[], None] | None = None) -> Frame:
        """The next message. While none arrives, `tick` is called every `TICK_S` seconds and may raise.

        Raises: ClosedError, WireError.
        """
        magic, header_size, payload_size = _PREFIX.unpack(self._read(_PREFIX.size, tick))
        if magic != MAGIC or header_size > MAX_HEADER:
            raise WireError(f"{magic!r} does not begin a message of the rollout protocol")
        fields = json.loads(self._read(header_size, tick))
        return Frame(fields.pop("kind"), fields, self._read(payload_size, tick))

    def close(self) -> None:
        self._connection.close()

    def _read(self, size: int, tick: Callable[[], None] | None) -> bytes:
        read = bytearray()
        while len(read) < size:
            if tick is not None:
                while not select.select([self._connection], [], [], TICK_S)[0]:
                    tick()
            try:
                part = self._connection.recv(min(size - len(read), 2**20))
            except OSError as error:
                raise ClosedError(str(error)) from error
            if not part:
                raise ClosedError("the connection was closed")
            read += part
        return bytes(read)
