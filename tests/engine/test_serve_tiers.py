"""Three tiers on a real server, with keys and a gateway's header: what each got is recounted from
what was routed."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import torch
from oea_server_demo import MODEL
from openai import BadRequestError
from prometheus_client.parser import text_string_to_metric_families

from oea_server.client import chat
from oea_server.client.ask import ask
from oea_server.client.server import Server
from oea_server.tiers import keys
from tests.servers import COMMON, LAYERS, SETTLE, K, with_plugin

pytestmark = [pytest.mark.nightly, pytest.mark.launch]

ADMIN = "nobody-elses-admin-key"
KEYS = {"gold": "sk-of-gold", "silver": "sk-of-silver", "*": "sk-of-the-gateway"}
TIERS = "gold: exact; silver: k0=5; bronze: auto"
WORKERS = 12


class Got(NamedTuple):
    tier: str
    tokens: int


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def server(steps: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("keys") / "tier-keys"
    file.write_text("".join(f"{tier}: {keys.hashed(key)}\n" for tier, key in KEYS.items()))
    tiers = (
        "--oea-tiers",
        TIERS,
        "--oea-default-tier",
        "bronze",
        "--oea-tier-header",
        "X-OEA-Tier",
    )
    flags = (
        "--model-path",
        str(MODEL),
        "--served-model-name",
        "demo",
        *COMMON,
        *tiers,
        "--oea-tier-keys",
        str(file),
    )
    environment = {**with_plugin(), "ROUTED_FOLDER": str(steps), "OEA_ADMIN_KEY": ADMIN}
    running = Server(
        *flags, "--oea-k0", "2", "--oea-share", "0", environment=environment, key=ADMIN
    )
    running.settle = SETTLE
    with running:
        yield running


def by_tier(server: Server, name: str) -> dict[str, float]:
    text = ask("GET", f"{server.url}/metrics", timeout=30).text
    return {
        sample.labels["tier"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"oea_tier_{name}"
    }


def settled(server: Server, name: str) -> dict[str, float]:
    before: dict[str, float] = {}
    for _ in range(60):
        time.sleep(1.2)
        if (now := by_tier(server, name)) == before and now:
            return now
        before = now
    raise AssertionError(f"{name} never stood still")


def bearing(tier: str) -> dict[str, str]:
    """The headers of a client of a tier: every second one of gold's comes by the gateway."""
    return {"Authorization": f"Bearer {KEYS[tier]}"} if tier in KEYS else {}


def generate(
    server: Server, rid: str, headers: dict[str, str], oea: Any = None, tokens: int = 16
) -> requests.Response:
    sampling: dict[str, Any] = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    if oea is not None:
        sampling["custom_params"] = {"oea": oea}
    body = {
        "input_ids": [100 + sum(rid.encode()) % 500, 7, 9],
        "sampling_params": sampling,
        "rid": rid,
    }
    return requests.post(f"{server.url}/generate", json=body, headers=headers, timeout=300)


def crowd(server: Server, prefix: str) -> dict[str, Got]:
    """Requests of all tiers at once; what was asked for, by their ids."""
    ways: list[tuple[str, dict[str, str], Any]] = [
        ("gold", bearing("gold"), None),
        ("silver", bearing("silver"), None),
        ("bronze", {}, None),
        ("bronze", {"Authorization": "Bearer EMPTY"}, None),
        ("gold", {**bearing("*"), "x-oea-TIER": "gold"}, None),
        ("silver", bearing("gold"), {"tier": "silver"}),
    ]
    asked = {f"{prefix}{i}": (ways[i % len(ways)], 8 + i % 9) for i in range(8 * len(ways))}

    def send(rid: str) -> tuple[str, Got]:
        (tier, headers, oea), tokens = asked[rid]
        reply = generate(server, rid, headers, oea, tokens)
        assert reply.status_code == 200, reply.text
        return rid, Got(tier, reply.json()["meta_info"]["completion_tokens"])

    with ThreadPoolExecutor(WORKERS) as pool:
        return dict(pool.map(send, asked))


def recounted(steps: Path, sent: dict[str, Got]) -> dict[str, tuple[int, float]]:
    """Of each tier: its tokens in all layers, and the mass that they kept; from the logits that
    each layer had. Layers that SGLang routed itself kept all."""
    tokens: dict[str, int] = defaultdict(int)
    mass: dict[str, float] = defaultdict(float)
    for file in sorted(steps.iterdir()):
        step = torch.load(file)
        for row, rid in enumerate(step["rids"]):
            if rid not in sent:
                continue
            tier = sent[rid].tier
            tokens[tier] += LAYERS
            mass[tier] += LAYERS - len(step["layers"])
            for logits, ids, weights in step["layers"]:
                scores = logits[row].softmax(-1)
                taken = ids[row][weights[row] > 0].long()
                mass[tier] += float(scores[taken].sum() / scores.topk(K).values.sum())
    return {tier: (tokens[tier], mass[tier]) for tier in tokens}


def promised(steps: Path, sent: dict[str, Got], k0: dict[str, int]) -> int:
    """Check that rows took their own best, and exact ones just these. Returns how many of them
    there were."""
    seen = 0
    for file in sorted(steps.iterdir()):
        step = torch.load(file)
        for row, rid in enumerate(step["rids"]):
            if rid not in sent or not (wanted := k0.get(sent[rid].tier)):
                continue
            for logits, ids, weights in step["layers"]:
                best = logits[row].softmax(-1).topk(K).indices.tolist()
                taken = ids[row][weights[row] > 0].tolist()
                assert set(best[:wanted]) <= set(taken)
                assert wanted < K or taken == best
                seen += 1
    return seen


def clear(steps: Path) -> None:
    for file in steps.iterdir():
        file.unlink()


def test_each_tier_gets_what_it_is_promised_and_is_counted_by_itself(
    server: Server, steps: Path
) -> None:
    generate(server, "first", {}).raise_for_status()
    settled(server, "requests_total")
    clear(steps)
    names = (
        *("requests_total", "tokens_total", "inter_token_latency_seconds_count"),
        *("sampled_tokens_total", "kept_router_mass_total", "broken_promises_total"),
    )
    before = {name: by_tier(server, name) for name in names}
    sent = crowd(server, "a")
    settled(server, "sampled_tokens_total")
    gained = {
        name: {
            tier: value - before[name].get(tier, 0.0)
            for tier, value in by_tier(server, name).items()
        }
        for name in names
    }
    of = {
        tier: [each for each in sent.values() if each.tier == tier]
        for tier in ("gold", "silver", "bronze")
    }
    tokens = {tier: sum(each.tokens for each in mine) for tier, mine in of.items()}
    assert gained["requests_total"] == {tier: len(mine) for tier, mine in of.items()}
    assert gained["tokens_total"] == tokens
    # the last token of an answer that is not streamed comes with those before it
    assert all(
        0 <= tokens[tier] - count <= tokens[tier] for tier, count in gained[names[2]].items()
    )
    found = recounted(steps, sent)
    assert gained["sampled_tokens_total"] == {tier: found[tier][0] for tier in of}
    for tier in of:
        assert gained["kept_router_mass_total"][tier] == pytest.approx(found[tier][1], rel=1e-5)
    kept = {
        tier: gained["kept_router_mass_total"][tier] / gained["sampled_tokens_total"][tier]
        for tier in of
    }
    assert kept["gold"] == pytest.approx(1.0, abs=1e-6)
    assert kept["bronze"] < kept["silver"] < 1
    assert not any(gained["broken_promises_total"].values())
    assert promised(steps, sent, {"gold": K, "silver": 5}) > 1000


def test_streams_tell_the_time_between_two_tokens_of_each_tier(server: Server) -> None:
    settled(server, "requests_total")
    before = by_tier(server, "inter_token_latency_seconds_count").get("gold", 0.0)
    client = chat.client(server.url, KEYS["gold"], timeout=300)
    stream = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=12,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    assert sum(1 for _ in stream) >= 2  # what waits for a client comes together
    settled(server, "requests_total")
    assert 0 < by_tier(server, "inter_token_latency_seconds_count")["gold"] - before <= 11
    rows = {row["tier"]: row for row in server.stats()["tiers"]}
    assert rows["gold"]["promise"] == "exact"
    assert rows["gold"]["mass_kept"] == 1.0
    assert rows["gold"]["tpot_ms"] > 0
    assert rows["bronze"]["default"]
    assert all(row["broken"] == 0 for row in rows.values())


@pytest.mark.parametrize(
    ("headers", "oea"),
    [
        ({}, {"tier": "gold"}),
        ({}, {"tier": "silver"}),
        ({}, {"exact": True}),
        ({}, {"k0": 3}),
        ({}, {"promise": 1 << 15}),
        ({"X-OEA-Tier": "gold"}, None),
        ({"x-oea-tier": "gold", "Authorization": "Bearer wrong"}, None),
        ({"X-OEA-TIER": "gold", **bearing("silver")}, None),
        ({"Authorization": f"Basic {KEYS['gold']}"}, {"tier": "gold"}),
        ({"Authorization": f"Bearer {keys.hashed(KEYS['gold'])}"}, {"tier": "gold"}),
        (bearing("silver"), {"tier": "gold"}),
        (bearing("silver"), {"k0": 6}),
        ({**bearing("*"), "X-OEA-Tier": "gold, gold"}, None),
        ({**bearing("*"), "X-OEA-Tier": "lead"}, None),
    ],
)
def test_who_bears_no_key_cannot_have_a_tier(
    server: Server, headers: dict[str, str], oea: Any
) -> None:
    before = by_tier(server, "requests_total")
    reply = generate(server, f"no-{time.monotonic_ns()}", headers, oea)
    assert reply.status_code == 400
    said = reply.json()["error"]["message"]
    assert "\n" not in said
    assert "tier" in said or "is no wish" in said
    assert not any(key in reply.text for key in KEYS.values())
    assert by_tier(server, "requests_total") == before


def test_a_header_of_another_spelling_and_one_that_is_there_twice(server: Server) -> None:
    """Past clients that would not send them."""
    import http.client

    def status(*headers: tuple[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        body = b'{"text": "x", "sampling_params": {"max_new_tokens": 2}}'
        connection.putrequest("POST", "/generate")
        for name, value in (
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *headers,
        ):
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status

    before = settled(server, "requests_total")
    assert status(("X_OEA_Tier", "gold")) == 200  # says nothing
    assert status(("X-OEA-Tier", "bronze"), ("x-oea-tier", "gold")) == 400
    assert (
        status(
            ("X-OEA-Tier", "gold"), ("X-OEA-Tier", "gold"), ("Authorization", f"Bearer {KEYS['*']}")
        )
        == 400
    )
    both = (
        ("Authorization", f"Bearer {KEYS['gold']}"),
        ("Authorization", "Bearer x"),
        ("X-OEA-Tier", "gold"),
    )
    assert status(*both) == 400
    after = settled(server, "requests_total")
    assert {tier: after[tier] - before[tier] for tier in after if after[tier] != before[tier]} == {
        "bronze": 1
    }


def test_a_tiers_key_changes_nothing_and_no_answer_holds_one(server: Server) -> None:
    for key in KEYS.values():
        assert ask("PUT", f"{server.url}/oea/config", key, json={"k0": "3"}).status_code == 401
    for path in ("/oea/config", "/oea/stats", "/metrics", "/server_info"):
        text = ask("GET", f"{server.url}{path}", ADMIN, timeout=30).text
        assert not any(key in text or keys.hashed(key) in text for key in KEYS.values())
    log = server.log.read_text(errors="replace")
    assert not any(key in log for key in KEYS.values())


def test_a_live_change_is_for_those_that_come_after_it(server: Server, steps: Path) -> None:
    for tiers, why in (
        ("silver: k0=5; bronze: auto", "keys are bound to gold"),
        (None, "default_tier=bronze: no such tier"),
        ("gold: exact; silver: k0=1; bronze: auto", "silver: k0=1 is below 2"),
        ("gold: k0=9; silver: k0=5; bronze: auto", "gold: k0=9 is above 8"),
        ("gold; silver: k0=5", "'gold' is no tier"),
    ):
        with pytest.raises(RuntimeError, match=why):
            server.steer(tiers=tiers)
    assert server.config()["settings"]["tiers"] == TIERS
    server.steer(tiers="gold: k0=6; silver: k0=3; bronze: auto; lead: auto", default_tier="lead")
    clear(steps)
    reply = generate(server, "lead", {})
    assert reply.status_code == 200
    sent = {f"c{i}": Got(("gold", "silver")[i % 2], 0) for i in range(12)}
    with ThreadPoolExecutor(WORKERS) as pool:
        assert {
            each.status_code
            for each in pool.map(lambda rid: generate(server, rid, bearing(sent[rid].tier)), sent)
        } == {200}
    assert promised(steps, sent, {"gold": 6, "silver": 3}) > 200
    assert settled(server, "requests_total")["lead"] == 1
    server.steer(k0="4")  # above silver's: the higher holds
    clear(steps)
    with ThreadPoolExecutor(WORKERS) as pool:
        for each in pool.map(lambda rid: generate(server, rid, bearing(sent[rid].tier)), sent):
            assert each.status_code == 200
    assert promised(steps, sent, {"gold": 6, "silver": 4}) > 200
    server.steer(k0="2", tiers=TIERS, default_tier="bronze")
    assert not any(by_tier(server, "broken_promises_total").values())


def test_the_official_client_is_told_in_one_line(server: Server) -> None:
    client = chat.client(server.url, "EMPTY", timeout=300)
    with pytest.raises(BadRequestError, match="gold is above tier bronze"):
        client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=2,
            extra_body={"custom_params": {"oea": {"tier": "gold"}}},
        )
    assert os.environ.get("OEA_TIERS") is None
