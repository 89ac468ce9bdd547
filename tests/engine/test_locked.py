"""Nobody without the key changes anything, and no answer tells a key, however it is asked for."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from oea_server_demo import MODEL

from oea_server.access import keys
from oea_server.access.keys import Keys
from oea_server.engine import conflicts, http, locks, runtime
from tests.engine.locked_app import App, listening

ADMIN, API = "the-admin's", "a-customer's"
MODES = {
    "open": Keys(),
    "api": Keys(api=API),
    "admin": Keys(admin=ADMIN),
    "both": Keys(API, ADMIN),
}
BEARERS = {
    "none": [],
    "wrong": [("Authorization", "Bearer wrong")],
    "odd": [("Authorization", "Bearer \xe9")],
} | {key: [("Authorization", f"Bearer {key}")] for key in (ADMIN, API)}
ODD_HOSTS = {"health": "x/health?", "page": "x/oea?", "at": "a@b/oea#", "empty": ""}
HOSTS = {"own": None, "rebound": "evil.example:80", **ODD_HOSTS}
ORIGINS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "foreign": [("Origin", "http://evil.example")],
    "null": [("Origin", "null")],
    "nothing": [("Origin", "")],
    "image": [("Sec-Fetch-Site", "cross-site")],
    "neighbour": [("Origin", "http://127.0.0.1:1"), ("Sec-Fetch-Site", "same-site")],
    "page": [("Sec-Fetch-Site", "same-origin")],
}
CHANGES = [
    ("PUT", "/oea/config", b'{"k0": 3}'),
    ("POST", "/set_internal_state", b'{"server_args": {"oea_k0": 3}}'),
    ("PUT", "/set_internal_state", b'{"server_args": {"oea_k0": 3}}'),
    ("GET", "/flush_cache", b""),
    ("POST", "/flush_cache", b""),
    ("POST", "/freeze_gc", b""),
    ("POST", "/abort_request", b'{"rid": "", "abort_all": true}'),
]
SPELLINGS = [
    ("PUT", "/oea/%63onfig"),
    ("PUT", "/oea/config/"),
    ("PUT", "//oea/config"),
    ("PUT", "/oea/config;x"),
    ("PUT", "/oea/config?x"),
    ("PUT", "/health/../oea/config"),
    ("PUT", "/oea%2fconfig"),
    ("PUT", "/OEA/config"),
    ("POST", "/oea/config"),
    ("PATCH", "/oea/config"),
    ("DELETE", "/oea/config"),
    ("HEAD", "/flush_cache"),
    ("OPTIONS", "/flush_cache"),
    ("POST", "/metrics/../flush_cache"),
]
PLACES = list(itertools.product(MODES, (1, 2), ("", "/pre")))


@pytest.fixture(params=PLACES, ids=lambda place: f"{place[0]}-{place[1]}-{place[2] or '/'}")
def place(request: pytest.FixtureRequest, now: runtime.Runtime) -> Iterator[tuple[App, Keys]]:
    mode, workers, root_path = request.param
    with listening(MODES[mode], workers, root_path) as app:
        yield app, MODES[mode]


def elsewhere(host: str, origin: str) -> bool:
    """Whether a browser would say that a page of another origin asks; a name that was pointed here
    is its own."""
    return origin not in ("none", "page") and (host, origin) != ("rebound", "foreign")


def may(has: Keys, bearer: str, host: str, origin: str) -> bool:
    """Who may change what serves."""
    if host in ODD_HOSTS or elsewhere(host, origin):
        return False
    return host == "own" if has.control is None else bearer == has.control


def test_only_the_keys_holder_changes_anything(place: tuple[App, Keys]) -> None:
    app, has = place
    for (method, path, body), (bearer, proof), host, origin in itertools.product(
        CHANGES[:3], BEARERS.items(), HOSTS, ORIGINS
    ):
        check(app, has, method, path, body, bearer, proof, host, origin)
    for (method, path, body), bearer, origin in itertools.product(
        CHANGES[3:], ("none", has.control or API), ORIGINS
    ):
        check(app, has, method, path, body, bearer, BEARERS[bearer], "own", origin)


def check(
    app: App,
    has: Keys,
    method: str,
    path: str,
    body: bytes,
    bearer: str,
    proof: list[tuple[str, str]],
    host: str,
    origin: str,
) -> None:
    status, answer, reached = app.ask(method, path, [*proof, *ORIGINS[origin]], body, HOSTS[host])
    said = (method, path, bearer, host, origin, status, answer)
    assert bool(reached) == may(has, bearer, host, origin), said
    if host in ODD_HOSTS:
        assert status == 400, said
    elif elsewhere(host, origin):
        assert status == 403, said
    elif not reached:
        assert status == (403 if has.control is None else 401), said
    assert no_key(answer), said


def no_key(answer: bytes) -> bool:
    return not any(key.encode() in answer for key in (ADMIN, API))


def test_no_other_spelling_gets_past_the_key(place: tuple[App, Keys]) -> None:
    app, has = place
    for (method, path), origin in itertools.product(SPELLINGS, ("none", "foreign")):
        status, _, reached = app.ask(method, path, ORIGINS[origin], b'{"k0": 3}')
        open_here = has.control is None and origin == "none"
        assert open_here or not reached, (method, path, status, reached)


def test_no_answer_holds_a_key(place: tuple[App, Keys]) -> None:
    from sglang.srt.entrypoints import http_server

    app, has = place
    paths = {
        route.path
        for route in locks.leaves(http_server.app)
        if "GET" in (getattr(route, "methods", None) or ())
    }
    assert {"/server_info", "/get_server_info", "/model_info"} <= paths
    for path, bearer in itertools.product(
        sorted(paths | {"/oea", "/oea/config"}), ("none", "wrong", ADMIN, API)
    ):
        status, answer, _ = app.ask("GET", path, BEARERS[bearer], b"")
        assert no_key(answer), (path, bearer, status)
    for path, bearer in itertools.product(("/server_info", "/get_server_info"), BEARERS):
        status, answer, _ = app.ask("GET", path, BEARERS[bearer], b"")
        assert status == (200 if has.control is None or bearer == has.control else 401), (
            path,
            bearer,
            answer,
        )
        if status == 200 and has.given:
            assert b'"***"' in answer


def test_what_needs_no_key_needs_none(place: tuple[App, Keys]) -> None:
    app, has = place
    assert app.ask("GET", "/oea", [], b"")[0] == 200
    assert app.ask("GET", "/oea/config", [], b"")[0] == (401 if has.api else 200)
    assert app.ask("GET", "/health", [], b"")[0] not in (401, 403)
    assert (
        app.ask("GET", "/oea/config", BEARERS[API] if has.api else [], b"", host="evil.example")[0]
        == 200
    )


@pytest.mark.parametrize(
    "claim",
    [("X-Forwarded-For", "10.1.2.3"), ("X-Real-IP", "10.1.2.3"), ("Forwarded", "for=[::1]")],
)
def test_a_proxy_on_this_machine_passes_for_nobody_else(
    now: runtime.Runtime, claim: tuple[str, str]
) -> None:
    with listening(Keys()) as app:
        status, answer, reached = app.ask("PUT", "/oea/config", [claim], b'{"k0": 3}')
        assert (status, reached) == (403, [])
        assert json.loads(answer.split(b"}")[0] + b"}")["error"].startswith(
            "this server has no key"
        )
        assert app.ask("PUT", "/oea/config", [("X-Forwarded-For", "127.0.0.1")], b'{"k0": 3}')[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_would_let_anybody_in_does_not_serve(
    now: runtime.Runtime,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As with a starlette before 1.0.1: the path that is judged is the one that Host names."""
    from starlette.requests import Request

    class Url:
        def __init__(self, request: Request) -> None:
            self.path = (
                f"/{request.headers['host']}".replace("/x", "").split("?")[0]
                or request.scope["path"]
            )

    monkeypatch.setattr(Request, "url", property(Url))
    ended: list[str] = []
    monkeypatch.setattr(locks, "refuse", ended.append)
    with listening(Keys(admin=ADMIN), workers):
        assert len(ended) == 1
    assert "without a key and with Host x/" in ended[0]
    assert "starlette must be 1.0.1 or newer" in ended[0]


def test_an_old_starlette_is_refused_where_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, old in (
        ("0.46.2", True),
        ("1.0.0", True),
        ("1.0.1", False),
        ("1.10.0", False),
        ("2.0", False),
    ):
        monkeypatch.setattr(locks, "version", lambda _, installed=installed: installed)
        assert (locks.old_starlette() is not None) == old, installed


def test_a_route_that_nothing_marks_ends_the_launch(
    now: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sglang.srt.utils.auth.auth_level", lambda level: lambda endpoint: endpoint)
    with pytest.raises(SystemExit), listening(Keys(admin=ADMIN)):
        pass


def test_an_app_of_somebody_elses_is_refused_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.APP_PATH, "theirs:app")
    with pytest.raises(SystemExit):
        http.hand_to_workers(object(), object(), Keys(admin=ADMIN))


@pytest.mark.parametrize(
    ("flags", "admin"), [([], ADMIN), (["--admin-api-key", "flag's"], "flag's")]
)
def test_keys_come_from_variables_where_flags_name_none(
    now: runtime.Runtime, flags: list[str], admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang.srt.server_args import prepare_server_args

    monkeypatch.setenv(keys.ADMIN, ADMIN)
    monkeypatch.setenv(keys.API, API)
    given = prepare_server_args(["--model-path", str(MODEL), *flags])
    getattr(given, "resolve_once", lambda: None)()
    locks.take(given)
    copied = pickle.loads(pickle.dumps(given))  # as another process gets it
    for each in (given, copied, conflicts.resolved(given)):
        assert (each.api_key, each.admin_api_key) == (API, admin)


@pytest.mark.parametrize(
    ("environment", "view", "said"),
    [
        ({}, {"api_key": ""}, "--api-key: an empty key locks nothing"),
        ({}, {"admin_api_key": "\xe9"}, "--admin-api-key: a key is printable ASCII"),
        (
            {},
            {"api_key": "k", "smg_grpc_mode": True},
            "--smg-grpc-mode: SGLang asks for no key there",
        ),
        ({}, {"api_key": "k", "grpc_port": 5}, "--grpc-port: SGLang asks for no key there"),
        (
            {"SGLANG_RUST_SERVER": "1"},
            {"admin_api_key": "k"},
            "SGLANG_RUST_SERVER: SGLang asks for no key there",
        ),
        ({"SGLANG_RUST_SERVER": "1"}, {}, None),
        ({}, {"smg_grpc_mode": True}, None),
        ({}, {"api_key": "k", "admin_api_key": "k"}, None),
    ],
)
def test_a_launch_that_could_not_keep_its_keys_is_refused(
    environment: dict[str, str],
    view: dict[str, Any],
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    problems = locks.problems(SimpleNamespace(**{"api_key": None, "admin_api_key": None, **view}))
    assert [each.startswith(str(said)) for each in problems] == ([] if said is None else [True])


def test_no_record_of_a_log_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    make = logging.getLogRecordFactory()
    try:
        locks.learn(SimpleNamespace(api_key="K", admin_api_key="a'\"longer one"))
        logger = logging.getLogger("sglang.test")
        logger.error("server_args=%s", {"api_key": "K", "admin_api_key": "a'\"longer one"})
        logger.error("ServerArgs(api_key='K')")
        logger.error("asked for %s, %d", "/x?key=a'\"longer one", 3)
    finally:
        logging.setLogRecordFactory(make)
    assert [record.getMessage() for record in caplog.records][-3:] == [
        "server_args={'api_key': '***', 'admin_api_key': '***'}",
        "ServerArgs(api_key='***')",
        "asked for /x?key=***, 3",
    ]
