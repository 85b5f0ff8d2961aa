"""How many connections ended without a handshake, from what libzmq tells of them."""

from __future__ import annotations


class Handshakes:
    """Accounts of one listening socket.

    libzmq names the descriptor of a connection when it is accepted and when it is closed, not when its
    handshake succeeds or its key is refused, and of peers that speak something older than CURVE it tells
    nothing but the closing. So a closing without any reason counts as a failure where no handshake was
    settled while that connection was open. Where one was, it is taken for this one's; if it was another's,
    that one's closing makes up for it: the sum is right once all are closed.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._settled = 0
        self._succeeded = 0
        self._refused = 0
        self._failing = False

    def accept(self, descriptor: int) -> None:
        """A connection was accepted."""
        self._open[descriptor] = self._settled

    def succeed(self) -> None:
        """Some connection's handshake has succeeded."""
        self._succeeded += 1
        self._settled += 1

    def refuse(self) -> None:
        """Some connection's key was refused; it is closed soon, and that is no further failure."""
        self._refused += 1
        self._settled += 1

    def fail(self) -> None:
        """The connection that is closed next broke the protocol."""
        self._failing = True

    def close(self, descriptor: int) -> bool:
        """A connection was closed; True if it was one without a handshake."""
        settled_before = self._open.pop(descriptor, self._settled)
        failing, self._failing = self._failing, False
        if failing or settled_before == self._settled or not self._succeeded + self._refused:
            return True
        if self._refused:
            self._refused -= 1
        else:
            self._succeeded -= 1
        return False
