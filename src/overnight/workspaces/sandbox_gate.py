"""The way out for an agent that may reach a list of hosts: an HTTP proxy outside of its sandbox.

Standard library only: this file is started as a program, above the sandbox and beneath the keeper, so that it lives
exactly as long as the agent and not as long as a server. The sandbox has a network of its own with nothing in it. A few
lines of `INSIDE` listen there and hand the listening socket out; whoever connects to it is answered here.

    python -I -S -E sandbox_gate.py '["host", "*.host:443"]' bwrap ARGUMENTS…
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
import threading
from typing import NoReturn

PORT = 3128
"""Where the proxy listens, on the loopback of the sandbox."""
HANDED = 3
"""The descriptor over which the listening socket comes out; closed before the agent begins."""

INSIDE = f"""
import array, os, socket, sys
try:
    listener = socket.create_server(("127.0.0.1", {PORT}), backlog=64)
    way = socket.socket(fileno={HANDED})
    way.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))])
    way.close()
    listener.close()
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    os.write(2, b"bwrap: the way out could not be made: " + str(error).encode() + b"\\n")
    os._exit(1)
"""
"""Run inside, in front of the agent's own command, by `python -I -S -E -c`."""

MAX_HEAD = 65_536
MAX_CONNECTIONS = 200
CONNECT_WITHIN_S = 30.0
USUAL_PORTS = frozenset((80, 443))
_PIECE = 65_536


class Refused(Exception):
    """What the client is told: a status line's end."""


class Rules:
    """The hosts that may be reached."""

    def __init__(self, entries: list[str]) -> None:
        self._rules = [_split(entry.lower()) for entry in entries]

    def allow(self, host: str, port: int) -> bool:
        """Whether a rule names this host and port. A rule without a port means 80 and 443."""
        return any(
            _matches(name, host) and (wanted in ("*", port) or (wanted is None and port in USUAL_PORTS))
            for name, wanted in self._rules
        )

    def names(self, host: str) -> bool:
        """Whether the operator wrote down this very host: only then may it be one of this machine."""
        return any(name == host for name, _ in self._rules)


def _split(entry: str) -> tuple[str, int | str | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        port = port.lstrip(":")
    else:
        name, _, port = entry.partition(":")
    return name.rstrip("."), port if port == "*" else int(port) if port else None


def _matches(name: str, host: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def addresses(rules: Rules, host: str, port: int) -> list[tuple[str, int]]:
    """Where to connect for a host that a client names. Raises Refused."""
    if not rules.allow(host, port):
        raise Refused(f"403 {host}:{port} is not among the hosts that the sandbox lets through")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"502 {host} is not known: {error.strerror}") from None
    own = rules.names(host) and (host == "localhost" or _is_address(host))
    usable = [(str(entry[4][0]), port) for entry in found if own or _is_elsewhere(str(entry[4][0]))]
    if not usable:
        raise Refused(f"403 {host} leads to this machine")
    return usable


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_elsewhere(address: str) -> bool:
    """A name whose owner sends it to the loopback, or to the host's own services, shall not open those."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return not (mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast)


def target_of(line: bytes) -> tuple[str, str, int, str]:
    """Method, host, port and path of a request line. Raises Refused."""
    try:
        method, target, _ = line.decode("ascii").split(" ")
        if method == "CONNECT":
            return method, *_authority(target, None), ""
        scheme, _, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        if scheme.lower() != "http":
            raise ValueError(scheme)
        return method, *_authority(authority.rpartition("@")[2], 80), f"{slash or '/'}{path}"
    except ValueError:
        raise Refused("400 this proxy takes CONNECT host:port and http:// addresses") from None


def _authority(text: str, usual: int | None) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    else:
        host, _, port = text.partition(":")
    if not host or (not port and usual is None):
        raise ValueError(text)
    return host.lower().rstrip("."), int(port) if port else int(usual or 0)


def forwarded(head: bytes, method: str, host: str, port: int, path: str) -> bytes:
    """A plain request as its server wants it: one for each connection, and for the host that was checked."""
    _, *lines = head.split(b"\r\n")
    dropped = (b"host:", b"connection:", b"proxy-", b"keep-alive:")
    kept = [line for line in lines if line and not line.lower().startswith(dropped)]
    name = f"[{host}]" if ":" in host else host
    named = name if port == 80 else f"{name}:{port}"
    first = [f"{method} {path} HTTP/1.1".encode(), f"Host: {named}".encode(), b"Connection: close"]
    return b"\r\n".join([*first, *kept, b"", b""])


def _serve(client: socket.socket, rules: Rules, room: threading.BoundedSemaphore) -> None:
    try:
        with client:
            client.settimeout(CONNECT_WITHIN_S)
            try:
                _answer(client, rules)
            except Refused as refused:
                words = str(refused).encode("utf-8", "replace")
                client.sendall(b"HTTP/1.1 " + words + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    except OSError:
        return
    finally:
        room.release()


def _answer(client: socket.socket, rules: Rules) -> None:
    head, rest = _head(client)
    method, host, port, path = target_of(head.split(b"\r\n", 1)[0])
    with _connected(addresses(rules, host, port)) as server:
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            server.sendall(rest)
        else:
            server.sendall(forwarded(head, method, host, port, path) + rest)
        client.settimeout(None)
        server.settimeout(None)
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(_PIECE)
        if not piece or len(data) > MAX_HEAD:
            raise Refused("400 that is no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _connected(places: list[tuple[str, int]]) -> socket.socket:
    for place in places:
        try:
            return socket.create_connection(place, CONNECT_WITHIN_S)
        except OSError:
            continue
    raise Refused(f"502 nobody answers at {places[0][0]}")


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(_PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def _let_through(way: socket.socket, rules: Rules) -> None:
    """Take the listening socket from the inside, and serve it for as long as this process lives."""
    _, handles, _, _ = socket.recv_fds(way, 1, 1)
    way.close()
    if not handles:
        return
    room = threading.BoundedSemaphore(MAX_CONNECTIONS)
    listener = socket.socket(fileno=handles[0])
    while True:
        room.acquire()
        try:
            client, _ = listener.accept()
        except OSError:
            room.release()
            continue
        threading.Thread(target=_serve, args=(client, rules, room), daemon=True).start()


def _start(argv: list[str], theirs: socket.socket) -> NoReturn:
    try:
        os.dup2(theirs.fileno(), HANDED)
        os.execv(argv[0], argv)  # noqa: S606 - argv as given, never a shell
    except OSError as error:
        os.write(2, f"bwrap: {argv[0]}: {error.strerror}\n".encode())
    os._exit(1)


def main() -> None:
    """Start the sandbox, let it out to the hosts of the list, end as it ends."""
    rules = Rules(json.loads(sys.argv[1]))
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _start(sys.argv[2:], theirs)
    theirs.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in range(3):
        os.dup2(nothing, handle)  # the agent's pipes are not ours to hold
    threading.Thread(target=_let_through, args=(ours, rules), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
