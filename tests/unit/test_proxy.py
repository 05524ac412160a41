"""The network that fails on demand does so when it is told to, and not before."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dualwrite.testing.proxy import DOWN, UP, Proxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """One that leads to a system which answers everything with the same."""
    with socket.create_server(("127.0.0.1", 0)) as system, Proxy("127.0.0.1", system.getsockname()[1]) as proxy:
        threading.Thread(target=answer, args=(system,), daemon=True).start()
        yield proxy


def answer(system: socket.socket) -> None:
    """Say what is heard, client by client."""
    while True:
        try:
            client, _ = system.accept()
        except OSError:
            return
        threading.Thread(target=echo, args=(client,), daemon=True).start()


def echo(client: socket.socket) -> None:
    """Say what one client says."""
    try:
        with client:
            while data := client.recv(1000):
                client.sendall(data)
    except OSError:
        pass


def connect(proxy: Proxy) -> socket.socket:
    """A client."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def heard(client: socket.socket, size: int) -> bytes:
    """So many bytes, or those before the end."""
    found = b""
    try:
        while len(found) < size and (data := client.recv(size - len(found))):
            found += data
    except ConnectionError:
        pass
    return found


def is_refused(proxy: Proxy) -> bool:
    """Is a new connection ended at once?  That may be noticed before it is there."""
    try:
        with connect(proxy) as client:
            return heard(client, 1) == b""
    except ConnectionError:
        return True


def test_it_carries_both_ways_until_it_is_cut(proxy: Proxy) -> None:
    """A cut ends every connection; a new one goes through again, unless it is refused until ``resume``."""
    with connect(proxy) as client, connect(proxy) as other:
        for each in (client, other):
            each.sendall(b"hello")
            assert heard(each, 5) == b"hello"
        proxy.cut()
        assert [heard(each, 1) for each in (client, other)] == [b"", b""]
    proxy.cut(refuse=True)
    assert is_refused(proxy)
    proxy.resume()
    with connect(proxy) as client:
        client.sendall(b"again")
        assert heard(client, 5) == b"again"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_it_cuts_after_so_many_bytes(proxy: Proxy, direction: str) -> None:
    """They get through, and nothing behind them, on connections that have said a word."""
    with connect(proxy) as client, connect(proxy) as other:
        for each in (client, other):
            each.sendall(b"ready")
            assert heard(each, 5) == b"ready"
        done = proxy.cut_after(7, direction, b"word", anew=True)
        other.sendall(b"x" * 20)
        assert heard(other, 20) == b"x" * 20
        assert not done.is_set()
        client.sendall(b"word12345")
        assert b"word123".startswith(heard(client, 9))
        assert done.wait(10)
        assert heard(other, 1) == b""


def test_it_falls_silent_and_comes_back(proxy: Proxy) -> None:
    """What was said meanwhile is heard in the end, and so is that somebody has gone."""
    with connect(proxy) as client:
        client.sendall(b"before")
        assert heard(client, 6) == b"before"
        proxy.silence()
        client.sendall(b"meanwhile")
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(10)
        proxy.resume()
        assert heard(client, 9) == b"meanwhile"
