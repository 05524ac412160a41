"""A network that fails on demand: a TCP proxy that cuts connections, at once or after so many bytes, or falls silent.

with Proxy("127.0.0.1", 5432) as proxy:
    ...                                       # let the connector reach its system through proxy.port
    proxy.cut_after(10_000, DOWN, b"COPY")    # in the middle of what the system sends once it has heard of COPY
    proxy.cut()                               # every connection, now
    proxy.silence()                           # nothing gets through, and nobody is told …
    proxy.resume()                            # … until now
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Final

UP: Final = "up"
"""From the client to the system."""
DOWN: Final = "down"
"""From the system to the client."""

_CHUNK: Final = 4096
_REMEMBERED: Final = 1 << 16  # of what a client has sent
_RESET: Final = struct.pack("ii", 1, 0)  # closing then resets the connection, as a network that fails may do


@dataclass
class _Plan:
    """A cut that is to come: after so many bytes in a direction, on a connection that has heard of ``mention``."""

    left: int
    direction: str
    mention: bytes
    done: Event


class _Pair:
    """One connection of a client, and the one to the system that belongs to it."""

    def __init__(self, client: socket.socket, system: socket.socket) -> None:
        self.sockets = {UP: (client, system), DOWN: (system, client)}
        self.heard = b""

    def cut(self) -> None:
        """Both ends are reset."""
        for end in self.sockets[UP]:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                end.close()


class Proxy:
    """Leads from a free local port, ``port``, to a system; a context manager.  For any thread."""

    def __init__(self, host: str, port: int) -> None:
        """It takes connections at once."""
        self._system = (host, port)
        self._changed = Condition()
        self._pairs: set[_Pair] = set()
        self._plan: _Plan | None = None
        self._silent = self._refusing = self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._spawn(self._accept)

    @staticmethod
    def _spawn(target: Callable[..., None], *arguments: object) -> None:
        Thread(target=target, args=arguments, name="proxy", daemon=True).start()

    # -- trouble --------------------------------------------------------------------------------------------------

    def cut(self, refuse: bool = False) -> None:
        """Cut every connection now; ``refuse`` also those that are asked for until ``resume``."""
        with self._changed:
            self._refusing = refuse
            pairs, self._pairs = self._pairs, set()
            for pair in pairs:
                pair.cut()
            self._changed.notify_all()

    def cut_after(self, count: int, direction: str = DOWN, mention: bytes = b"", *, anew: bool = False) -> Event:
        """Cut everything once ``count`` more bytes have gone in a direction; they get through.

        With ``mention``, only bytes of a connection count whose client has sent these bytes before, or, with ``anew``,
        sends them from now on.  The event is set when it has happened.
        """
        plan = _Plan(count, direction, mention, Event())
        with self._changed:
            self._plan = plan
            for pair in self._pairs if anew else ():
                pair.heard = b""
        return plan.done

    def silence(self) -> None:
        """From now on nothing gets through, in either direction, and no connection ends."""
        with self._changed:
            self._silent = True

    def resume(self) -> None:
        """Everything gets through again: first what was held back."""
        with self._changed:
            self._silent = self._refusing = False
            self._changed.notify_all()

    def close(self) -> None:
        """Cut everything, and take no more connections.  Idempotent."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- traffic --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                system = socket.create_connection(self._system)
            except OSError:
                client.close()
                continue
            pair = _Pair(client, system)
            with self._changed:
                self.accepted += 1
                if self._refusing or self._closed:
                    pair.cut()
                    continue
                self._pairs.add(pair)
            for direction in (UP, DOWN):
                self._spawn(self._forward, pair, direction)

    def _forward(self, pair: _Pair, direction: str) -> None:
        source, sink = pair.sockets[direction]
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                self._wait()
                with self._changed:
                    allowed, is_over = self._allowed(pair, direction, data)
                sink.sendall(data[:allowed])
                if is_over is not None:
                    self.cut()
                    is_over.done.set()
        self._wait()  # nobody hears of an end either while it is silent
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)  # one direction may end before the other
        if direction == DOWN:
            pair.cut()
            with self._changed:
                self._pairs.discard(pair)

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._silent)

    def _allowed(self, pair: _Pair, direction: str, data: bytes) -> tuple[int, _Plan | None]:
        """How much of the data may pass, and the plan that is fulfilled by it."""
        if direction == UP:
            pair.heard = (pair.heard + data)[-_REMEMBERED:]
        plan = self._plan
        if plan is None or direction != plan.direction or plan.mention not in pair.heard:
            return len(data), None
        if len(data) < plan.left:
            plan.left -= len(data)
            return len(data), None
        self._plan = None
        return plan.left, plan
