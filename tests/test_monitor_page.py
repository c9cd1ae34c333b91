"""The monitor's page: whom its server lets in, what it answers, and who cannot stop it."""

import contextlib
import http.client
import json
import re
import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from jaxbed.errors import InputError
from jaxbed.monitor import page
from jaxbed.monitor.page import parse_address, serve
from jaxbed.monitor.status import Status
from tests.monitor_status import NAN, PICTURE, event, scores, show

OWN = {"X-Monitor": "1"}
CSP = "Content-Security-Policy"


@pytest.fixture
def status():
    return Status()


@pytest.fixture
def server(status):
    with serve(status, "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def guarded(status):
    """A server that other machines could reach."""
    with serve(status, "0.0.0.0:0") as running:
        yield running


class Answer(NamedTuple):
    code: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(server, path, *, method="GET", headers=None, body=None, host=None):
    port = urlsplit(server.url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": host or f"127.0.0.1:{port}", **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def acknowledge(server, event_id="a", *, headers=OWN, **changed):
    body = json.dumps({"id": event_id}).encode()
    return ask(server, "/acknowledge", method="POST", headers=headers, body=body, **changed)


def test_the_page_is_one_file_and_asks_nothing_of_others(server):
    answer = ask(server, "/")
    assert answer.code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    text = answer.body.decode()
    outside = set(re.findall(r"""https?://[^\s"'`]+""", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside
    assert not re.search(r"(src|srcset|action)=[\"'](?!data:)", text)
    assert "not a medical device" in text.lower()


def test_every_answer_forbids_to_keep_frame_or_extend_it(server, status):
    show(status)
    for path in ("/", "/state", "/picture.jpg", "/nothing"):
        headers = ask(server, path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Python" not in headers["Server"]
        rules = dict(rule.strip().split(" ", 1) for rule in headers[CSP].split(";"))
        assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
        assert rules["connect-src"] == "'self'"
        for kind in ("script-src", "style-src"):
            assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules[kind])


def test_state_is_the_snapshot_and_leaves_out_known_events(server, status):
    show(status, observation=scores(stomach=NAN))
    status.add_event(event("a"))
    told = json.loads(ask(server, "/state").body)
    assert told["scores"]["stomach"] is None
    assert told["events"][0]["id"] == "a"
    assert "events" not in json.loads(ask(server, f"/state?seen={told['events_version']}").body)


def test_the_picture_comes_and_is_404_before_the_first_and_without_frames(server, status):
    assert ask(server, "/picture.jpg").code == 404
    show(status)
    answer = ask(server, "/picture.jpg")
    assert (answer.headers["Content-Type"], answer.body) == ("image/jpeg", PICTURE)
    blind = Status(wants_picture=False)
    show(blind)
    with serve(blind, "127.0.0.1:0") as running:
        assert ask(running, "/picture.jpg").code == 404
        assert json.loads(ask(running, "/state").body)["pictures"] is False


def test_acknowledge(server, status):
    status.add_event(event("a"))
    assert acknowledge(server).code == 200
    assert status.snapshot()["events"][0]["acknowledged"]
    assert acknowledge(server, "b").code == 404
    for body in (b"", b"{", b"[]", b"3", b"{}", b"\xff", b"[" * 1000):
        answer = ask(server, "/acknowledge", method="POST", headers=OWN, body=body)
        assert answer.code == 400, body
    assert ask(server, "/acknowledge", method="POST", headers=OWN).code == 413
    assert ask(server, "/acknowledge", method="POST", headers=OWN, body=b" " * 5000).code == 413
    assert ask(server, "/elsewhere", method="POST", headers=OWN, body=b"").code == 404


def test_another_pages_post_is_refused(server, status):
    status.add_event(event("a"))
    port = urlsplit(server.url).port
    assert acknowledge(server, headers={}).code == 403
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"):
        assert acknowledge(server, headers={**OWN, "Origin": origin}).code == 403, origin
    assert status.snapshot()["events"][0]["acknowledged"] is None
    # The browser asks for leave before it sends the header across sites; it gets none.
    leave = ask(server, "/acknowledge", method="OPTIONS")
    assert leave.code == 501
    assert not [name for name in leave.headers if name.lower().startswith("access-control")]
    own = {**OWN, "Origin": f"http://127.0.0.1:{port}"}
    assert acknowledge(server, headers=own).code == 200


def test_a_name_that_is_not_this_machines_is_refused(server, guarded):
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[", " "):
        assert ask(server, "/state", host=host).code == 421, host
        assert acknowledge(server, host=host).code == 421, host
        assert ask(guarded, "/", host=host).code == 421, host
    for host in ("localhost", "LOCALHOST:1234", "127.0.0.1:1", "[::1]:80"):
        assert ask(server, "/state", host=host).code == 200, host
    assert ask(server, "/state", host="192.168.1.5").code == 421
    for host in ("192.168.1.5:8080", socket.gethostname(), f"{socket.gethostname()}.local:80"):
        assert ask(guarded, "/state", host=host).code == 403, host
    with contextlib.closing(connect(server)) as raw:
        raw.sendall(b"GET /state HTTP/1.1\r\n\r\n")
        assert b" 421 " in received(raw)


def test_a_token_is_needed_where_others_could_come(guarded, status):
    show(status)
    status.add_event(event("a"))
    token = guarded.url.partition("?token=")[2]
    assert len(token) >= 32
    for path in (
        "/",
        "/state",
        "/picture.jpg",
        "/?token=",
        f"/?token={token[:-1]}",
        "/?token=%c3%a9%ff",
    ):
        assert ask(guarded, path).code == 403, path
    assert acknowledge(guarded).code == 403
    # Only the page takes it from the address: other addresses should never hold it.
    assert ask(guarded, f"/state?token={token}").code == 403

    answer = ask(guarded, f"/?token={token}")
    assert answer.code == 200
    cookie, *rules = [part.strip() for part in answer.headers["Set-Cookie"].split(";")]
    assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
    assert token.encode() not in answer.body
    kept = {"Cookie": f"other=(odd; {cookie}"}
    for path in ("/", "/state", "/picture.jpg"):
        assert ask(guarded, path, headers=kept).code == 200
    assert acknowledge(guarded, headers={**OWN, **kept}).code == 200
    assert ask(guarded, "/state", headers={"Cookie": cookie + "x"}).code == 403


def test_every_start_has_its_own_token(status, guarded):
    with serve(status, "0.0.0.0:0") as other:
        assert other.url.partition("=")[2] != guarded.url.partition("=")[2]


def test_the_printed_address_of_all_interfaces_can_be_opened(guarded):
    host = urlsplit(guarded.url).hostname
    assert host not in ("0.0.0.0", "127.0.0.1")
    assert guarded._http.is_own_name(urlsplit(guarded.url).netloc)


def test_loopback_needs_none(server):
    assert "token" not in server.url
    assert ask(server, "/?token=anything").headers["Set-Cookie"] is None


# --- clients that misbehave


def connect(server):
    return socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=5)


def received(raw):
    with contextlib.suppress(OSError):
        return b"".join(iter(lambda: raw.recv(65536), b""))
    return b""


def test_slow_clients_hold_up_nobody_and_are_ended(server, status, monkeypatch):
    monkeypatch.setattr(page, "REQUEST_S", 0.5)
    show(status, picture=bytes(20_000_000))
    slow = [connect(server) for _ in range(2 * page.CONNECTIONS)]
    for i, raw in enumerate(slow):
        with contextlib.suppress(OSError):  # the oldest have been ended to make room
            raw.sendall(b"GET /picture.jpg HTTP/1.1\r\nHost: localhost\r\n" + b"\r\n" * (i % 2))
    begun = time.monotonic()
    assert ask(server, "/state").code == 200
    assert time.monotonic() - begun < 1.0
    for raw in slow:
        received(raw)
        raw.close()
    assert time.monotonic() - begun < 5.0
    assert not server._http._since
    assert ask(server, "/state").code == 200


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00",  # somebody tries TLS
        b"\r\n" * 10,
        b"GET\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"POST /acknowledge HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_rubbish_is_answered_without_a_traceback(server, rubbish, capfd):
    with contextlib.closing(connect(server)) as raw:
        raw.sendall(rubbish)
        raw.shutdown(socket.SHUT_WR)
        assert b" 200 " not in received(raw)
    assert ask(server, "/state").code == 200
    assert capfd.readouterr().err == ""


def test_a_closed_server_leaves_the_port_and_can_be_closed_again(status):
    running = serve(status, "127.0.0.1:0")
    port = urlsplit(running.url).port
    running.close()
    running.close()
    with serve(status, f"127.0.0.1:{port}"):
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(running, "/state")


# --- the address


def test_addresses():
    assert parse_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("localhost:0") == ("localhost", 0)


@pytest.mark.parametrize(
    "address", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "::1:80", "a:b", "a:99999", "a b:1"]
)
def test_a_bad_address_is_told_in_a_sentence(status, address):
    with pytest.raises(InputError, match="expected HOST:PORT.*such as 127.0.0.1:8080"):
        serve(status, address)


def test_a_port_in_use_and_a_foreign_address_are_told(status, server):
    port = urlsplit(server.url).port
    with pytest.raises(InputError, match=f"{port}: the port is in use"):
        serve(status, f"127.0.0.1:{port}")
    with pytest.raises(InputError, match="not one of this machine"):
        serve(status, "192.0.2.1:8080")
    with pytest.raises(InputError, match="no machine is called"):
        serve(status, f"{'a' * 70}:8080")
