"""Tests cannot reach any other machine.

An audit hook sees every connection, datagram and name look-up that Python code in this process
starts, whoever starts it, and cannot be undone by what is tested. What it refuses it also remembers,
because the code under test may swallow the refusal: the fixture `no_network` (conftest.py) then fails
the test. Child processes, and clients that look up names in C, get a proxy that nobody answers.

A name below `.invalid` never resolves: the guard answers so itself, for tests of a DNS failure.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import cast

# What children and C code are told. Port 9 discards; nothing listens there.
PROXIES = {
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
}

_NAMED = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_ADDRESSED = {"socket.connect", "socket.sendto", "socket.sendmsg"}

_allowed = {"", "localhost", "ip6-localhost", socket.gethostname(), socket.getfqdn("127.0.0.1")}
_refused: list[str] = []


class ForeignHostError(RuntimeError):
    """A test tried to reach another machine."""


def allow(host: str) -> None:
    """Let tests reach `host` too: that of a server that the environment names."""
    _allowed.add(host)
    _allowed.update(str(entry[4][0]) for entry in socket.getaddrinfo(host, None))


def refused() -> list[str]:
    """What was refused since the last call."""
    attempts = _refused.copy()
    _refused.clear()
    return attempts


def guard() -> None:
    """Start guarding this process, for the rest of its life."""
    sys.addaudithook(_audit)


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event in _ADDRESSED:
        # (host, port, …) of IPv4 and IPv6; the path of a Unix socket is a string.
        host = cast("tuple[object, ...]", args[1])[0] if isinstance(args[1], tuple) else None
    elif event in _NAMED:
        host = args[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or host in _allowed or _is_loopback(host):
        return
    if host.endswith(".invalid"):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    _refused.append(f"{event} {host}")
    raise ForeignHostError(f"tests reach nothing but this machine, not {host} ({event})")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
