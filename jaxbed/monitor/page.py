"""Serves the page of the monitor to a browser: the standard library's server, one file.

Routes: `/` the page, `/state` what it shows (JSON), `/picture.jpg` the newest picture, and POST
`/acknowledge`. A page asks again every second; a connection carries one request, so that one
that is slow or lost holds up nobody.

What keeps strangers out: it listens on the loopback interface unless told otherwise; elsewhere
every request needs a random token, which the printed address holds. A name in the Host header
that is not this machine's is refused (DNS rebinding), so is a POST from another page, and the
browser is told to run nothing but the page's own script. There is no encryption: over a network
that others share, use a tunnel (`ssh -L 8080:127.0.0.1:8080 HOST`).
"""

import base64
import contextlib
import errno
import hashlib
import http
import ipaddress
import json
import os
import re
import secrets
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jaxbed.errors import InputError
from jaxbed.monitor.status import Status

CONNECTIONS = 32
"""Connections at a time; one more ends the oldest."""
REQUEST_S = 10.0
"""A connection that is older is ended, however busy it is."""
WAIT_S = 5.0
"""The longest wait for the next byte from or to a client."""
COOKIE_S = 7 * 24 * 3600
BODY_BYTES = 1024
PAGE = Path(__file__).with_name("page.html")

_WHY_NOT = {
    errno.EADDRINUSE: "the port is in use by another program; choose another port",
    errno.EACCES: "the port may not be opened by this user; choose one above 1023",
    errno.EADDRNOTAVAIL: "the address is not one of this machine; use 127.0.0.1 or its own",
}


class Server:
    """A running server of the page; leave its context, or close it, to stop it.

    Attributes:
        url: what to open in a browser; with the token where one is needed.
    """

    def __init__(self, http_server: "_Http", url: str):
        self.url = url
        self._http = http_server
        self._thread = threading.Thread(
            target=http_server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening and ends all connections. A second call does nothing."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()
            self._http.drop_older_than(0.0)


def serve(status: Status, address: str) -> Server:
    """Starts to serve the page in threads of its own.

    Args:
        status: what to show.
        address: HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080; port 0 takes any free one.
            A host that is not a loopback address makes a token necessary.

    Raises:
        InputError: the address cannot be read or listened on.
    """
    host, port = parse_address(address)
    try:
        family, _, _, _, bound = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        http_server = _Http(status, bound, family, host)
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(
            f"--serve {address}: no machine is called {host!r}; use 127.0.0.1 for this one."
        ) from error
    except OSError as error:
        why = _WHY_NOT.get(error.errno, f"it cannot be listened on ({error.strerror})")
        raise InputError(f"--serve {address}: {why}.") from error
    return Server(http_server, http_server.url(host))


def parse_address(address: str) -> tuple[str, int]:
    """Splits HOST:PORT.

    Raises:
        InputError: it is not of that form.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/@\s]+)):(\d{1,5})", address)
    if not found or int(found[3]) > 65535:
        raise InputError(
            f"--serve {address}: expected HOST:PORT with a port up to 65535, "
            "such as 127.0.0.1:8080."
        )
    return found[1] or found[2], int(found[3])


class _Http(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens; bounds the number and the age of connections."""

    allow_reuse_address = os.name == "posix"  # elsewhere it lets two share a port
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, status: Status, bound: tuple, family: int, host: str):
        self.status = status
        self.address_family = family
        ip = ipaddress.ip_address(bound[0].partition("%")[0])
        self.loopback = ip.is_loopback
        self.token = None if self.loopback else secrets.token_urlsafe(24)
        self.names = {"localhost", host.lower()}
        if not self.loopback:
            own = socket.gethostname().lower()
            self.names |= {own, f"{own}.local"}
        # As the browser sees it: line ends as HTML reads them, for the hashes below.
        text = PAGE.read_text(encoding="utf-8")
        self.page, self.policy = text.encode(), _policy(text)
        self._lock = threading.Lock()
        self._since: dict[socket.socket, float] = {}
        super().__init__(bound, _Handler)

    @property
    def cookie(self) -> str:
        """The cookie's name; a browser sends a cookie to all ports of a host."""
        return f"monitor_{self.server_address[1]}"

    def url(self, host: str) -> str:
        """Returns the address to open in a browser."""
        port = self.server_address[1]
        if host in ("0.0.0.0", "::"):
            host = _own_address(self.address_family)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{port}/" + (f"?token={self.token}" if self.token else "")

    def is_own_name(self, host: str) -> bool:
        """Tells whether a Host header names this server, which a rebound name does not."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ip = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return ip.is_loopback or not self.loopback

    def process_request(self, request: Any, client_address: Any) -> None:
        """Notes when the connection began, and makes room for it."""
        with self._lock:
            oldest = next(iter(self._since), None)
            if len(self._since) >= CONNECTIONS and oldest is not None:
                self._drop(oldest)
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets the connection."""
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Ends what is too old; called several times a second."""
        self.drop_older_than(REQUEST_S)

    def drop_older_than(self, age_s: float) -> None:
        """Ends connections that began so long ago or longer."""
        limit = time.monotonic() - age_s
        with self._lock:
            for request in [r for r, since in self._since.items() if since <= limit]:
                self._drop(request)

    def _drop(self, request: socket.socket) -> None:
        # Its thread wakes up from reading or writing, and closes it.
        del self._since[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Http
    timeout = WAIT_S
    server_version, sys_version = "jaxbed", ""

    def do_GET(self) -> None:  # noqa: N802, D102
        path, asked = self._path_and_query()
        token = asked.get("token", "") if path == "/" else ""
        if not self._may_enter(token):
            return
        status = self.server.status
        if path == "/":
            cookie = f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
            kept = {"Set-Cookie": f"{cookie}; Max-Age={COOKIE_S}"} if self.server.token else {}
            self._answer(200, "text/html; charset=utf-8", self.server.page, kept)
        elif path == "/state":
            self._answer_json(status.snapshot(asked.get("seen")))
        elif path == "/picture.jpg":
            picture = status.picture() if status.wants_picture else None
            if picture is None:
                self.send_error(404, "no picture: pictures are off, or none has come yet")
            else:
                self._answer(200, "image/jpeg", picture)
        else:
            self.send_error(404)

    def do_POST(self) -> None:  # noqa: N802, D102
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES:
            self.send_error(413, f"a Content-Length of at most {BODY_BYTES} is needed")
            return
        body = self.rfile.read(int(length))  # first: an answer before it may get lost
        if not self._may_enter() or not self._is_from_own_page():
            return
        if self._path_and_query()[0] != "/acknowledge":
            self.send_error(404)
            return
        try:
            event_id = json.loads(body)["id"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.send_error(400, 'expected {"id": ...}')
            return
        if self.server.status.acknowledge(event_id):
            self._answer_json({"acknowledged": event_id})
        else:
            self.send_error(404, "there is no such event any more")

    def _path_and_query(self) -> tuple[str, dict[str, str]]:
        path, _, query = self.path.partition("?")
        return path, dict(parse_qsl(query))

    def _may_enter(self, token: str = "") -> bool:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.is_own_name(hosts[0]):
            self.send_error(421, "this server goes by another name; open the printed address")
            return False
        if self.server.token is None:
            return True
        kept = _cookie(self.headers.get("Cookie", ""), self.server.cookie)
        own = self.server.token.encode()
        if any([secrets.compare_digest(given.encode(), own) for given in (token, kept)]):
            return True
        self.send_error(403, "open the whole address that the monitor printed, with its token")
        return False

    def _is_from_own_page(self) -> bool:
        # Another site's page can send neither this header nor this origin without being asked
        # for leave first, and leave is never given.
        own = {f"{scheme}://{self.headers['Host']}" for scheme in ("http", "https")}
        if self.headers.get("X-Monitor") and self.headers.get("Origin", next(iter(own))) in own:
            return True
        self.send_error(403, "only the monitor's own page may do this")
        return False

    def _answer_json(self, content: Any) -> None:
        body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        self._answer(200, "application/json", body)

    def _answer(
        self, code: int, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        fixed = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.server.policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers with one line of text."""
        message = message or http.HTTPStatus(code).phrase.lower()
        self._answer(code, "text/plain; charset=utf-8", f"{message}\n".encode())

    def log_message(self, *_: object) -> None:
        """Says nothing: the terminal belongs to the monitor."""


def _policy(page: str) -> str:
    """Allows the page's own script and style, by their hashes, and nothing else."""

    def allowed(tag: str) -> str:
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )

    return (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; "
        "img-src 'self' data:; connect-src 'self'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _cookie(header: str, name: str) -> str:
    # Not http.cookies: it stops at the first odd cookie that another program left on the host.
    for part in header.split(";"):
        found, _, value = part.strip().partition("=")
        if found == name:
            return value
    return ""


def _own_address(family: int) -> str:
    """Returns the address by which other machines most likely reach this one."""
    outside = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((outside, 9))  # a datagram socket: nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
