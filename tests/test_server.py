"""The server's door: whoever has read its address may come in at once."""

from __future__ import annotations

import socket

import pytest

import server
from autodidact.errors import SettingError


def test_a_connection_is_kept_from_the_moment_the_address_is_known() -> None:
    listener = server._listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(3) == b"GET"


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with server._listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingError, match=f"127.0.0.1:{port}.*choose another with --port"):
            server._listen("127.0.0.1", port)
