"""The key goes to the server that was named, and to nobody on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
import requests
from typer.testing import CliRunner

from oea_server.client import way
from oea_server.client.ask import ask
from oea_server.client.config_command import app
from oea_server.client.remote import Remote
from oea_server.lab.bench import load
from oea_server.lab.bench.served import attach
from oea_server.lab.records.options import OptionError
from tests.heard import Heard, hearing
from tests.unit.counted import state

KEY = "the-key"
CONFIG = {**state(), "changes": {}}
CHAT = {"id": "1", "object": "chat.completion", "created": 0, "model": "default", "choices": []}
STREAM = (
    b'data: {"id":"1","object":"text_completion","created":0,"model":"m","choices":[]}\n\ndata:'
    b" [DONE]\n\n"
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Heard]:
    """One that every variable names, and a .netrc that knows every host."""
    for name in ("no_proxy", "NO_PROXY", "OEA_KEY", "OEA_ADMIN_KEY", "OEA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with hearing(Heard(502)) as heard:
        for name in PROXIES:
            monkeypatch.setenv(name, heard.url)
        yield heard


@pytest.fixture
def server() -> Iterator[Heard]:
    with hearing(Heard(answer=CONFIG)) as heard:
        yield heard


def command(*words: str) -> str:
    """What `oea-server config` prints, and it has to go well."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def chat(server: Heard) -> None:
    server.answer, server.headers = CHAT, {"Content-Type": "application/json"}
    Remote(server.url, KEY).client.chat.completions.create(model="default", messages=[])


def play(server: Heard) -> None:
    server.answer, server.headers = STREAM, {"Content-Type": "text/event-stream"}
    load.play(server.url, 1, 2, KEY)


TOOLS: dict[str, Callable[[Heard], object]] = {
    "config get": lambda server: command("get", "--url", server.url, "--key", KEY),
    "config set": lambda server: command("set", "k0=4", "--url", server.url, "--key", KEY),
    "read": lambda server: Remote(server.url, KEY).config(),
    "steer": lambda server: Remote(server.url, KEY).steer(k0=4),
    "stats": lambda server: Remote(server.url, KEY).stats(),
    "chat": chat,
    "load": play,
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_to_this_machine_no_proxy_and_no_netrc(
    tool: Callable[[Heard], object],
    host: str,
    server: Heard,
    proxy: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Heard, "url", property(lambda self: f"http://{host}:{self.port}"))
    tool(server)
    assert server.keys == {f"Bearer {KEY}"}
    assert proxy.requests == []


def test_no_key_is_no_key_whatever_netrc_has(server: Heard, proxy: Heard) -> None:
    command("get", "--url", server.url)
    server.answer = b"oea_k0 3\n"
    assert Remote(server.url).metrics() == {"oea_k0": 3}
    assert server.keys == {None}
    assert proxy.requests == []


def test_elsewhere_a_proxy_is_used_and_told_nothing(proxy: Heard) -> None:
    assert ask("GET", "http://oea.internal:30000/oea/config").status_code == 502
    with pytest.raises(openai.APIStatusError):
        Remote("http://oea.internal:30000").client.models.list()
    assert [each.target for each in proxy.requests] == [
        "http://oea.internal:30000/oea/config",
        "http://oea.internal:30000/v1/models",
    ]
    assert proxy.keys == {None, "Bearer none"}


def test_an_unencrypted_key_passes_no_proxy(proxy: Heard) -> None:
    url = "http://oea.internal:30000"
    line = (
        f"{url}/oea/config: the proxy 127.0.0.1 could read the key; use https, or name oea.internal"
        " in no_proxy"
    )
    assert refused("get", "--url", url, "--key", KEY).strip() == f"oea-server: {line}"
    with pytest.raises(ValueError, match="could read the key"):
        Remote(url, KEY)
    assert proxy.requests == []


def test_what_is_to_be_measured_is_reached_the_same_way(
    proxy: Heard, server: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OEA_KEY", KEY)
    with pytest.raises(
        OptionError, match=r"^http://oea.internal:30000: the proxy 127.0.0.1 could read the key"
    ):
        attach("http://oea.internal:30000/")
    # it names no model
    with pytest.raises(OptionError, match="no oea-server answers there: KeyError"):
        attach(server.url)
    assert [each.target for each in server.requests] == ["/oea/config", "/model_info"]
    assert server.keys == {f"Bearer {KEY}"}
    assert proxy.requests == []


def test_no_proxy_names_hosts_that_are_reached_straight(
    proxy: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "oea.invalid")
    assert way.proxy("http://oea.invalid:30000", KEY) is None
    assert "ConnectionError" in refused("get", "--url", "http://oea.invalid:30000", "--key", KEY)
    assert proxy.requests == []


def test_an_encrypted_key_may_pass_one(proxy: Heard) -> None:
    with pytest.raises(requests.RequestException):
        ask("GET", "https://oea.internal:30000/oea/config", KEY)
    with pytest.raises(openai.APIConnectionError):
        Remote("https://oea.internal:30000", KEY).client.models.list()
    assert [(each.method, each.target) for each in proxy.requests] == [
        ("CONNECT", "oea.internal:30000")
    ] * 2
    assert proxy.keys == {None}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("tool", ["config get", "config set", "read", "steer", "chat"])
def test_no_key_follows_a_redirect(status: int, tool: str, server: Heard) -> None:
    with hearing(Heard(answer=CONFIG)) as other:
        where = f"http://localhost:{other.port}/oea/config"
        server.status, server.headers = status, {"Location": where}
        if tool.startswith("config"):
            words = (tool.split()[1], *(["k0=4"] if tool.endswith("set") else []))
            assert f"elsewhere, at {where}" in refused(*words, "--url", server.url, "--key", KEY)
        elif tool == "chat":
            client = Remote(server.url, KEY).client
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(model="default", messages=[])
        else:
            with pytest.raises(ValueError, match="elsewhere, at "):
                TOOLS[tool](server)
        assert other.requests == []
        assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0.0.0.0",
            "localhost",
            "LOCALHOST",
        ),
        *("localhost.", "oea.localhost", "[::1]", "[::ffff:127.0.0.1]", "[::]"),
    ],
)
def test_this_machine_by_any_name(host: str, proxy: Heard) -> None:
    assert way.proxy(f"http://{host}:30000", KEY) is None
    assert way.proxy(f"https://{host}", KEY) is None


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "128.0.0.1",
        "localhost.example",
        "127.0.0.1.example",
        "notlocalhost",
        "[2001:db8::1]",
        "[::ffff:8.8.8.8]",
    ],
)
def test_other_machines(host: str, proxy: Heard) -> None:
    assert way.proxy(f"https://{host}:30000", KEY) == proxy.url
    with pytest.raises(ValueError, match="could read the key"):
        way.proxy(f"http://{host}:30000", KEY)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:30000", "localhost:30000", "", "ftp://127.0.0.1", "http://", "http://[::1"]
)
def test_what_is_no_url_is_one_line(url: str) -> None:
    with pytest.raises(ValueError, match=r"not a server's URL|Invalid IPv6 URL"):
        ask("GET", url)
    refused("get", "--url", url)


def test_the_key_can_come_from_a_file(server: Heard, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    command("get", "--url", server.url, "--key-file", str(file))
    assert server.keys == {f"Bearer {KEY}"}
    assert "No such file" in refused(
        "get", "--url", server.url, "--key-file", str(tmp_path / "none")
    )


def test_the_servers_own_variables_are_enough_beside_it(
    server: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OEA_KEY", raising=False)
    monkeypatch.setenv("OEA_ADMIN_KEY", KEY)
    command("set", "k0=4", "--url", server.url)
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("status", "answer", "line"),
    [
        (403, {"error": "from this machine only"}, "from this machine only"),
        (409, {"error": "k0=9:\n\x1b[31mno"}, r"k0=9:\n\x1b[31mno"),
        (500, b"<html>\x1b[2J\nit broke", r"<html>\x1b[2J\nit broke"),
        (500, ["no", "object"], "['no', 'object']"),
        (409, {"error": "x" * 9000}, "xxx…"),
        (200, {}, "no oea-server answers there"),
        (200, [], "no oea-server answers there"),
        (404, {}, "no oea-server answers there"),
        (401, {}, "the server wants a key"),
    ],
)
def test_whatever_a_server_says_is_one_line(
    status: int, answer: object, line: str, server: Heard
) -> None:
    server.status, server.answer = status, answer
    said = refused("get", "--url", server.url)
    assert line in said
    assert len(said) < 1100


def test_what_it_changed_is_shown_line_by_line(server: Heard) -> None:
    server.answer = {**CONFIG, "changes": {"k0": ["auto", "4"], "x\n\x1b[2J": [1, 2]}}
    assert command("set", "k0=4", "--url", server.url).splitlines()[:2] == [
        "k0: auto -> 4",
        r"x\n\x1b[2J: 1 -> 2",
    ]
    assert json.loads(command("get", "--url", server.url)) == server.answer
