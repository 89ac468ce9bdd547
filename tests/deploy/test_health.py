"""The image's health check: it asks the server of its own container, whatever flags, proxy or
certificate that has."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.docker import health

ENTRY = ["tini", "--", "oea-entrypoint"]


@pytest.mark.parametrize(
    ("command", "url"),
    [
        ("", "http://127.0.0.1:30000"),
        ("--port 81 --x", "http://127.0.0.1:81"),
        ("serve --port=82", "http://127.0.0.1:82"),
        ("--port 83 --port=84", "http://127.0.0.1:84"),
        ("--host 0.0.0.0 --port 85", "http://127.0.0.1:85"),
        ("--host=0.0.0.0", "http://127.0.0.1:30000"),
        ("--host ::", "http://[::1]:30000"),
        ("--host=fd00::7 --port=86", "http://[fd00::7]:86"),
        ("--host 10.0.0.7", "http://10.0.0.7:30000"),
        ("--host=oea.internal", "http://oea.internal:30000"),
        ("--ssl-keyfile /k --ssl-certfile /c", "https://127.0.0.1:30000"),
        ("--ssl-certfile=/c --host=::", "https://[::1]:30000"),
        ("--hostname x --ported 1", "http://127.0.0.1:30000"),
        ("--fastapi-root-path /pre", "http://127.0.0.1:30000"),
        ("--port", "http://127.0.0.1:30000"),
    ],
)
def test_it_asks_where_the_server_listens(command: str, url: str) -> None:
    assert health.url([*ENTRY, *command.split(), ""]) == url


def test_an_empty_command_line_is_the_default() -> None:
    assert health.url([]) == "http://127.0.0.1:30000"


class Answer(BaseHTTPRequestHandler):
    """Says the status that its server has, and keeps the paths that were asked for."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(
    status: int, context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[str]]]:
    """A server's port, and what it is asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.status, server.asked = status, []  # type: ignore[attr-defined]
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def checked(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The health check as the engine runs it."""
    command = [sys.executable, str(health.__file__)]
    environment = {"PATH": os.environ["PATH"], "OEA_URL": url, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_it_ends_as_the_server_answers(status: int, code: int) -> None:
    with listening(status) as (port, asked):
        done = checked(f"http://127.0.0.1:{port}/")
    assert done.returncode == code, done
    assert str(status) in done.stdout
    assert asked == ["/health"]


def test_nobody_there_is_one_line() -> None:
    with listening(200) as (port, _):
        pass
    done = checked(f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_of_the_container_is_not_asked(name: str) -> None:
    with listening(200) as (port, asked), listening(502) as (proxy, seen):
        done = checked(f"http://127.0.0.1:{port}", **{name: f"http://127.0.0.1:{proxy}"})
    assert (done.returncode, seen, asked) == (0, [], ["/health"]), done


def test_a_certificate_for_another_name_will_do(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    self_signed(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with listening(200, context) as (port, asked):
        done = checked(f"https://127.0.0.1:{port}", https_proxy="http://127.0.0.1:9")
    assert (done.returncode, asked) == (0, ["/health"]), done


def self_signed(certificate: Path, key: Path) -> None:
    """For oea.example, valid since yesterday."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "oea.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
