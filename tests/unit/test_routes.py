"""/oea on an app of its own, with schedulers that are not there."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from oea_server import settings
from oea_server.observe import change
from oea_server.routing import Schedule
from oea_server.routing.schedule import SHARE
from tests.unit.counted import state
from tests.unit.replicas import Replicas, app_of


def client_of(replicas: Replicas) -> TestClient:
    return TestClient(app_of(replicas))


def test_reading() -> None:
    client = client_of(Replicas())
    page = client.get("/oea")
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert client.get("/oea/config").json() == {**state(), "schema": change.SCHEMA}
    assert "--enable-metrics" in client.get("/oea/stats").json()["missing"]
    for since in ("-1", "nan", "inf", "x", "1e999"):
        refused = client.get("/oea/stats", params={"since": since})
        assert (refused.status_code, refused.json()) == (
            422,
            {"error": f"since={since}: not a time in unix seconds"},
        )
    long = client.get("/oea/stats", params={"since": "\n\x1b\u2028" + "9x" * 9000})
    assert long.json()["error"].startswith("since=\\n\\x1b\\u20289x9x")
    assert len(long.json()["error"]) < 150


@pytest.mark.parametrize(
    ("path", "status"), [("config", 200), ("stats", 200), ("stats?since=x", 422)]
)
def test_answers_are_json_for_our_own_page_and_not_kept(path: str, status: int) -> None:
    reply = client_of(Replicas()).get(f"/oea/{path}")
    assert reply.status_code == status
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_change_says_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    replicas = Replicas(2)
    with caplog.at_level("INFO"):
        reply = client_of(replicas).put("/oea/config", json={"k0": 4, "max_rank": 12})
    assert reply.status_code == 200
    assert reply.json()["changes"] == {"k0": ["auto", "4"], "max_rank": [None, 12]}
    assert reply.json()["version"] == 1
    assert [each["settings"]["k0"] for each in replicas.now] == ["4", "4"]
    assert "testclient changed k0 auto -> 4, max_rank None -> 12" in caplog.text


BAD: list[tuple[str, int, str]] = [
    ("{", 422, "the body is not a JSON object"),
    ("[]", 422, "the body is not a JSON object"),
    ("", 422, "the body is not a JSON object"),
    ("{}", 422, "nothing to change; there are policy, k0"),
    ('{"k0": 3, "k0": 4}', 422, 'the body is not a JSON object: Detected duplicate key "k0"'),
    ("[" * 16000, 422, "the body is not a JSON object: recursion limit exceeded"),
    ('{"k0": ' + "[" * 16000, 422, "the body is not a JSON object: recursion limit exceeded"),
    ('{"p": NaN}', 422, "the body is not a JSON object"),
    ('{"p": 1e999}', 422, "p=inf: input should be less than or equal to 1"),
    ('{"k_max": 1' + "0" * 4000 + "}", 409, "k_max=1000"),
    ('{"kO": 3}', 422, "kO: no such knob; there are policy, k0"),
    ('{"policy": "off"}', 422, "policy=off: input should be 'oea', 'vanilla', 'shadow'"),
    ('{"k0": "1:8,2"}', 422, "k0=1:8,2: neither a number of 1..64 nor a schedule"),
    ('{"k0": 0}', 422, "k0=0: neither a number of 1..64"),
    ('{"k0": null}', 422, "k0=None: neither a number"),
    (
        '{"share": 1}',
        422,
        "share=1: neither a number of 0 <= share < 1 nor a schedule such as auto, 1:0,16:0.13 or",
    ),
    ('{"share": "0.1,4:0"}', 422, "share=0.1,4:0: neither a number of 0 <= share < 1"),
    ('{"mix": true}', 422, "mix=True: neither a number of 0 <= mix <= 1"),
    ('{"mix": null}', 422, "mix=None: neither a number of 0 <= mix <= 1"),
    ('{"mix": "1:1,16:1.5"}', 409, "mix=1:1.0,16:1.5: mix 1.5 is outside 0 <= mix <= 1"),
    ('{"k0": 3, "share": "2"}', 409, "share=2.0 is outside 0 <= share < 1"),
    ('{"p": 0}', 422, "p=0: input should be greater than 0"),
    ('{"p": "1"}', 422, "p=1: input should be a valid number"),
    ('{"min_batch": true}', 422, "min_batch=True: input should be a valid integer"),
    (
        '{"seed": 2147483648}',
        422,
        "seed=2147483648: input should be less than or equal to 2147483647",
    ),
    ('{"max_rank": 2.5}', 422, "max_rank=2.5: input should be a valid integer"),
    ('{"k0": 9}', 409, "k0=9 guarantees 9 experts, above the model's top-k 8"),
    ('{"k_max": 9}', 409, "k_max=9 is above 8"),
    ('{"max_rank": 17}', 409, "max_rank=17 is above the model's 16 experts"),
    ('{"k0": 5, "k_max": 4}', 409, "k_max=4 is below k0=5"),
    ('{"policy": "vanilla", "k0": 9}', 409, "k0=9 guarantees 9"),
    ('{"k0": "8:4,2:6"}', 409, "batch sizes must rise"),
    ('{"k0": "3; 0-9999=2"}', 409, "layer 9999 is outside 0..1023"),
]


@pytest.mark.parametrize(("body", "status", "why"), BAD)
def test_a_change_that_is_none_is_refused_with_one_line(body: str, status: int, why: str) -> None:
    replicas = Replicas()
    before = json.dumps(replicas.now)
    reply = client_of(replicas).put("/oea/config", content=body)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert why in reply.json()["error"]
    assert "\n" not in reply.json()["error"]
    assert json.dumps(replicas.now) == before


def test_whole_numbers_may_be_written_as_json_likes() -> None:
    asked = change.parse(b'{"k0": 4.0, "k_max": 8.0, "max_rank": null, "p": 1, "seed": 2e3}')
    assert asked == {"k0": "4", "k_max": 8, "max_rank": None, "p": 1.0, "seed": 2000}
    assert isinstance(asked["k_max"], int)


def test_a_mixture_is_refused_where_the_model_does_not_divide_weights() -> None:
    replicas = Replicas()
    client = client_of(replicas)
    assert client.put("/oea/config", json={"share": 0.1, "mix": 0.5}).json()["changes"] == {
        **{"share": ["auto", "0.1"], "mix": ["auto", "0.5"]},
    }
    replicas.now[0]["model"]["renormalize"] = False
    refused = client.put("/oea/config", json={"share": 0.2})
    assert (refused.status_code, "mix=0.5 has no effect" in refused.json()["error"]) == (409, True)
    assert client.put("/oea/config", json={"share": 0.2, "mix": "auto"}).status_code == 200


def test_policies_that_graphs_do_not_hold_are_refused() -> None:
    replicas = Replicas()
    replicas.now[0] |= {
        "policies": ["vanilla", "shadow"],
        "fixed": "CUDA graphs were captured otherwise",
    }
    client = client_of(replicas)
    refused = client.put("/oea/config", json={"policy": "oea"})
    assert (refused.status_code, refused.json()) == (
        409,
        {"error": "policy=oea: CUDA graphs were captured otherwise"},
    )
    assert client.put("/oea/config", json={"policy": "shadow"}).status_code == 200
    replicas.now[0] |= {"policies": [], "fixed": "no router can be handled"}
    assert client.put("/oea/config", json={"k0": 3}).status_code == 409


def test_replicas_change_together_or_not_at_all() -> None:
    replicas = Replicas(3, refusing=1)
    reply = client_of(replicas).put("/oea/config", json={"k0": 4})
    assert (reply.status_code, reply.json()) == (409, {"error": "not me"})
    assert [each["settings"]["k0"] for each in replicas.now] == ["auto"] * 3


@pytest.mark.parametrize(
    "k0", ["auto", "3", "1:8,2:6,16:3", "1:8,16:3; 0-3=8; 47=1:8,2:5", "4;0=3"]
)
def test_schedules_are_read_as_the_flag_reads_them(k0: str) -> None:
    assert change.parse(json.dumps({"k0": k0}).encode()) == {"k0": k0}
    assert k0 == "auto" or Schedule.of(k0)


@pytest.mark.parametrize(
    "text", ["auto", "0", "0.13", ".5", "1e-3", "1:0,16:0.13", "1:0,16:0.13; 0-3=0; 47=2:0.1"]
)
def test_shares_are_read_as_the_flag_reads_them(text: str) -> None:
    assert change.parse(json.dumps({"share": text}).encode()) == {"share": text}
    assert text == "auto" or Schedule.of(text, SHARE)


def test_the_description_has_every_knob_and_its_bounds() -> None:
    described = client_of(Replicas()).get("/openapi.json").json()["paths"]["/oea/config"]["put"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]) == list(settings.LIVE)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["p"]["maximum"] == 1
    share = next(
        each for each in schema["properties"]["share"]["anyOf"] if each["type"] == "number"
    )
    assert (share["minimum"], share["exclusiveMaximum"]) == (0, 1)
    assert {"200", "401", "409", "413", "422"} <= set(described["responses"])
