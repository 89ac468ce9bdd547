"""Keys that are read, text that is masked, and where requests come from."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from oea_server import serve
from oea_server.access import keys, mask, origin
from oea_server.access.answers import masking
from oea_server.settings import SettingsError, read


def test_a_key_is_in_a_variable_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for text in ("secret", "secret\n", "secret\r\n"):
        file.write_text(text, newline="")
        assert keys.admin({"OEA_ADMIN_KEY_FILE": str(file)}) == "secret"
        assert keys.api({"OEA_API_KEY_FILE": str(file)}) == "secret"
    assert keys.admin({"OEA_ADMIN_KEY": "secret"}) == "secret"
    assert (
        keys.admin({"OEA_KEY": "the client's", "OEA_ADMIN_KEY": "the server's"}) == "the server's"
    )
    assert keys.admin({"OEA_KEY": "the client's"}) == "the client's"
    assert keys.api({"OEA_KEY": "the client's"}) is None
    assert keys.admin({}) is None


@pytest.mark.parametrize(
    "text", ["", " secret", "secret ", "se\ncret", "s\xe9cret", "se\tcret", "se\x1bcret"]
)
def test_a_key_that_no_client_could_send_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, encoding="utf-8")
    for environ in ({"OEA_ADMIN_KEY": text}, {"OEA_ADMIN_KEY_FILE": str(tmp_path / "key")}):
        with pytest.raises(
            ValueError, match=r"\AOEA_ADMIN_KEY[^\n]*: (an empty key locks|a key is)[^\n]*\Z"
        ):
            keys.admin(environ)


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        (
            {"OEA_ADMIN_KEY_FILE": "/no/such/file"},
            "OEA_ADMIN_KEY_FILE=/no/such/file: No such file or directory",
        ),
        ({"OEA_ADMIN_KEY_FILE": "/"}, "OEA_ADMIN_KEY_FILE=/: Is a directory"),
        (
            {"OEA_API_KEY": "a", "OEA_API_KEY_FILE": "b"},
            "OEA_API_KEY and OEA_API_KEY_FILE: a key has one place",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_before_anything_is_loaded(
    environ: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{why}"):
        serve.check([])


def test_a_flag_names_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    launch = serve.check(["--oea-admin-key-file", str(tmp_path / "key")])
    assert keys.admin(launch.settings.environment()) == "secret"
    with pytest.raises(SettingsError, match="No such file"):
        serve.check(["--oea-api-key-file", str(tmp_path / "none")])


def test_what_kubernetes_writes_for_services_is_no_knob(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "PORT_HTTP"):
        monkeypatch.setenv(f"OEA_SERVER_SERVICE_{name}", "10.0.0.1")
    for name in ("", "_30000_TCP", "_30000_TCP_ADDR", "_30000_TCP_PORT", "_30000_TCP_PROTO"):
        monkeypatch.setenv(f"OEA_SERVER_PORT{name}", "tcp://10.0.0.1:30000")
    read()
    monkeypatch.setenv("OEA_PORT", "1")
    with pytest.raises(SettingsError, match="OEA_PORT: no such knob"):
        read()


def test_a_key_is_masked_wherever_an_answer_holds_it() -> None:
    answer = {
        "api_key": "K",
        "admin_api_key": "long-secret",
        "ssl_keyfile_password": "x",
        "served_model_name": "Koala",
        "launch_command": "--api-key K --admin-api-key=long-secret --served-model-name Koala",
        "states": [{"api_key": "K", "n": 1, "command": "Engine(api_key='K', other='long-secret')"}],
    }
    assert mask.masked(answer, ["K", "long-secret"]) == {
        "api_key": "***",
        "admin_api_key": "***",
        "ssl_keyfile_password": "***",
        "served_model_name": "Koala",
        "launch_command": "--api-key '***' --admin-api-key=*** --served-model-name Koala",
        "states": [{"api_key": "***", "n": 1, "command": "Engine(api_key='***', other='***')"}],
    }


async def _sent(key: str, parts: list[bytes], kind: bytes) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    through = masking(send, [key])
    length = str(sum(map(len, parts))).encode()
    headers = [(b"content-type", kind), (b"content-length", length)]
    await through({"type": "http.response.start", "status": 200, "headers": headers})
    for i, part in enumerate(parts):
        await through({"type": "http.response.body", "body": part, "more_body": i + 1 < len(parts)})
    return sent


@pytest.mark.parametrize("key", ["K", 'a"b\\c', "x y", "long-secret"])
def test_an_answer_in_parts_is_masked_as_a_whole(key: str) -> None:
    body = json.dumps({"a": [1, key], "other": "words"}).encode()
    start, only = asyncio.run(_sent(key, [body[:9], body[9:12], body[12:]], b"application/json"))
    assert json.loads(only["body"]) == {"a": [1, "***"], "other": "words"}
    assert dict(start["headers"])[b"content-length"] == str(len(only["body"])).encode()
    for kind, text in (
        (b"text/plain", body),
        (b"application/json", b"{cut " + body),
        (b"application/json", b""),
    ):
        sent = asyncio.run(_sent("none of this", [text], kind))
        assert b"".join(each.get("body", b"") for each in sent) == text


def scope(
    client: str | None = "127.0.0.1", peer: str | None = None, **headers: str
) -> dict[str, Any]:
    named = {"host": "127.0.0.1:30000", **headers}
    made: dict[str, Any] = {
        "type": "http",
        "client": (client, 1) if client else None,
        "server": ("10.0.0.5", 30000),
        "headers": [
            (name.replace("_", "-").encode(), value.encode()) for name, value in named.items()
        ],
    }
    return made if peer is None else {**made, origin.PEER: (peer, 1)}


@pytest.mark.parametrize(
    ("asked", "here"),
    [
        (scope(), True),
        (scope("::1", host="[::1]:30000"), True),
        (scope("::ffff:127.0.0.1"), True),
        (scope("127.8.8.8", host="localhost"), True),
        (scope("10.0.0.5", host="10.0.0.5:30000"), True),  # from its own address to its own address
        (scope("10.0.0.6", host="10.0.0.5:30000"), False),
        (scope("127.0.0.1", peer="10.0.0.6"), False),  # a header made it so
        (scope("10.0.0.6", peer="127.0.0.1"), False),  # a proxy here speaks for somebody else
        (scope(None), False),
        (scope("somebody"), False),
        (scope(host="evil.example"), False),
        (scope(host="127.0.0.1.evil.example"), False),
        (scope(host="localhost.evil.example"), False),
        (scope(x_forwarded_for="127.0.0.1, 10.0.0.6"), False),
        (scope(x_forwarded_for="127.0.0.1"), True),
        (scope(x_real_ip="10.0.0.6"), False),
        (scope(forwarded="for=10.0.0.6"), False),
    ],
)
def test_only_this_machine_is_this_machine(asked: dict[str, Any], here: bool) -> None:
    assert origin.from_this_machine(asked) == here


@pytest.mark.parametrize(
    ("asked", "foreign"),
    [
        (scope(), None),
        (scope(origin="http://127.0.0.1:30000"), None),
        (scope(origin="https://Name.example", host="name.example"), None),
        (scope(origin="https://name.example:443", host="name.example"), None),
        (
            scope(
                origin="https://public.example", host="backend:30000", sec_fetch_site="same-origin"
            ),
            None,
        ),
        (scope(origin="http://127.0.0.1:30001"), "http://127.0.0.1:30001"),
        (scope(origin="null"), "null"),
        (scope(origin="null", host=""), "null"),
        (scope(origin=""), ""),
        (scope(origin="file://"), "file://"),
        (scope(origin="http://[::1"), "http://[::1"),
        (scope(sec_fetch_site="cross-site"), "cross-site"),
        (scope(sec_fetch_site="same-site"), "same-site"),
        (scope(sec_fetch_site="none"), None),
        (scope(sec_fetch_site="none", origin="http://evil"), "http://evil"),
        (scope(sec_fetch_site="whatever"), "whatever"),
    ],
)
def test_a_page_of_another_origin_is_told_from_ours(
    asked: dict[str, Any], foreign: str | None
) -> None:
    assert origin.foreign(asked) == foreign


@pytest.mark.parametrize(
    ("host", "odd"),
    [
        ("127.0.0.1:30000", False),
        ("oea_server", False),
        ("[::1]:30000", False),
        ("name.example.", False),
        ("x/health?", True),
        ("x?", True),
        ("a@b", True),
        ("", True),
        (" x", True),
        ("x:port", True),
        ("x\ty", True),
        ("[::1]x", True),
        ("\xe9", True),
    ],
)
def test_hosts_are_names_or_addresses(host: str, odd: bool) -> None:
    assert origin.odd_host({"type": "http", "headers": [(b"Host", host.encode("latin-1"))]}) == odd
    assert origin.odd_host({"type": "http", "headers": [(b"host", b"x"), (b"host", b"x")]})
    assert not origin.odd_host({"type": "http", "headers": []})


def test_a_claim_cannot_write_a_line_of_a_log() -> None:
    claim = b"evil) changed k0\x85OEA: 1.2.3.4\x1b[31m"
    shown = origin.printable(b"X-Forwarded-For", claim)
    assert shown == b"evil? changed k0?OEA: 1.2.3.4?[31m"
    assert not origin.from_this_machine(scope(x_forwarded_for=shown.decode()))
    assert origin.printable(b"x-forwarded-for", b"[::1]:80, 10.0.0.1") == b"[::1]:80, 10.0.0.1"
    assert origin.printable(b"authorization", claim) == claim
