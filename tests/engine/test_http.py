"""/oea on the real server, with an admin key."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from oea_server.client.remote import Remote
from oea_server.client.server import Server
from tests.servers import KEY, LAYERS, LINE, Servers, command_lines
from tests.transcript import PROMPTS, generate

pytestmark = pytest.mark.server("oea")

FREE = ("/open_session", "/close_session")
"""What changes nothing but a chat of one's own."""
KEYED = {"Authorization": f"Bearer {KEY}"}
FUZZING = Path(__file__).with_name("fuzzing.toml")


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.get("oea")


@pytest.fixture
def admin(server: Server) -> Remote:
    return Remote(server.url, KEY)


def chats(server: Server, count: int = 8, tokens: int = 40) -> dict[str, float]:
    """So many at once; what the metrics gained."""
    before = server.settled_metrics()
    with ThreadPoolExecutor(count) as pool:
        list(
            pool.map(
                lambda i: generate(server, f"{PROMPTS[0]} {i}", max_new_tokens=tokens), range(count)
            )
        )
    after = server.settled_metrics()
    return {name: after[name] - before.get(name, 0) for name in after}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}])
def test_no_change_without_the_key(server: Server, headers: dict[str, str]) -> None:
    before = server.config()
    reply = requests.put(
        f"{server.url}/oea/config", json={"policy": "vanilla"}, headers=headers, timeout=30
    )
    assert (reply.status_code, reply.json()) == (401, {"error": "Unauthorized"})
    assert server.config() == before


def test_nobody_reads_the_key(server: Server) -> None:
    """Anybody asks every route, the log is read, and the process list of every process of the
    server."""
    described = requests.get(f"{server.url}/openapi.json", timeout=30).json()
    paths = [path for path, methods in described["paths"].items() if "get" in methods]
    assert {"/server_info", "/get_server_info", "/oea/config"} <= set(paths)
    changing = [path for path in paths if "post" in described["paths"][path]]
    for path in paths:
        reply = requests.get(f"{server.url}{path}", timeout=60)
        assert KEY not in reply.text + str(reply.headers), path
        if path in changing and path not in FREE:
            assert reply.status_code == 401, path
    info = requests.get(f"{server.url}/server_info", headers=KEYED, timeout=60)
    assert (
        info.json()["admin_api_key"] == info.json()["internal_states"][0]["admin_api_key"] == "***"
    )
    assert KEY not in info.text + server.log.read_text(errors="replace")
    listed = command_lines(server)
    assert len(listed) > 2
    assert not any(KEY in each for each in listed)


def test_no_page_of_another_origin_and_no_odd_host_changes_anything(server: Server) -> None:
    before = server.config()
    for more, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        reply = requests.put(
            f"{server.url}/oea/config", json={"k0": 1}, headers={**KEYED, **more}, timeout=30
        )
        assert reply.status_code == status
        assert (
            requests.get(
                f"{server.url}/flush_cache", headers={**KEYED, **more}, timeout=30
            ).status_code
            == status
        )
    odd = requests.put(
        f"{server.url}/oea/config",
        json={"k0": 1},
        headers={**KEYED, "Host": "x/health?"},
        timeout=30,
    )
    assert odd.status_code == 400
    assert server.config() == before
    page = {**KEYED, "Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert requests.put(
        f"{server.url}/oea/config", json={"policy": "oea"}, headers=page, timeout=30
    ).ok


def test_one_call_turns_it_off_and_one_on_again(server: Server, admin: Remote) -> None:
    off = requests.put(
        f"{server.url}/oea/config", json={"policy": "vanilla"}, headers=KEYED, timeout=30
    ).json()
    assert (off["active"], off["reason"]) == (False, "the policy is vanilla")
    gained = chats(server)
    assert gained["oea_unique_experts_sum"] == gained["oea_vanilla_unique_experts_sum"]
    assert gained["oea_expert_bytes_saved_total"] == 0
    admin.steer(policy="oea")
    gained = chats(server)
    assert gained["oea_unique_experts_sum"] < gained["oea_vanilla_unique_experts_sum"]
    saved = gained["oea_vanilla_unique_experts_sum"] - gained["oea_unique_experts_sum"]
    size = server.config()["model"]["expert_bytes"]
    assert size == 3 * 192 * 32 * 4  # float32 here
    assert gained["oea_expert_bytes_saved_total"] == saved * size
    assert gained["oea_expert_bytes_read_total"] == gained["oea_unique_experts_sum"] * size
    log = server.log.read_text()
    assert "OEA: 127.0.0.1 changed policy oea -> vanilla" in log
    assert "OEA: settings changed: policy vanilla -> oea" in log


def test_shadow_counts_what_serving_oea_then_does(server: Server, admin: Remote) -> None:
    """The same prompts at once, greedy. OEA says other words, and reads other experts for them;
    but of what vanilla would read in those steps, it reads about the predicted share."""
    admin.steer(policy="shadow")
    alone = generate(server, PROMPTS[1]).ids
    gained = chats(server)
    would = gained["oea_shadow_unique_experts_sum"] / gained["oea_vanilla_unique_experts_sum"]
    assert gained["oea_shadow_unique_experts_count"] == gained["oea_unique_experts_count"]
    assert gained["oea_unique_experts_sum"] == gained["oea_vanilla_unique_experts_sum"]
    stats = server.stats()
    assert stats["points"][-1]["policy"] == "shadow"
    assert stats["shadow"]["recent"]["bytes_saved"] > 0
    assert stats["latency"]["source"] == LINE.name
    assert stats["latency"]["oea_us"] < stats["latency"]["vanilla_us"]
    admin.steer(policy="oea")
    gained = chats(server)
    served = gained["oea_unique_experts_sum"] / gained["oea_vanilla_unique_experts_sum"]
    assert 0.4 < would < 0.9
    assert served == pytest.approx(would, rel=0.15)
    assert gained["oea_shadow_unique_experts_count"] == 0
    admin.steer(policy="vanilla")
    assert generate(server, PROMPTS[1]).ids == alone
    admin.steer(policy="oea")


def test_the_stats_are_the_metrics(server: Server) -> None:
    server.settled_metrics()
    before = server.stats()
    chats(server)
    time.sleep(2.5)
    metrics, stats = server.metrics(), server.stats()
    total = stats["total"]
    assert total["steps"] == metrics["oea_decode_step_seconds_count"]
    assert total["tokens"] == metrics["oea_routed_tokens_total"]
    assert total["assignments"] == metrics["oea_assignments_total"]
    assert total["piggybacked"] == metrics["oea_piggybacked_assignments_total"]
    assert total["bytes_read"] == metrics["oea_expert_bytes_read_total"]
    layers = stats["layers"]
    assert [each["layer"] for each in layers] == list(range(LAYERS))
    assert sum(each["tokens"] for each in layers) == total["tokens"]
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    for each in layers:
        assert f'oea_layer_steps_total{{layer="{each["layer"]}"}} {float(total["steps"])}' in text
    later = requests.get(
        f"{server.url}/oea/stats", params={"since": before["t"]}, timeout=30
    ).json()["points"]
    assert later
    assert all(point["t"] > before["t"] for point in later)
    assert sum(point["steps"] for point in later) == total["steps"] - before["total"]["steps"]


def command(server: Server, *words: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    given = ("--key", key) if key else ()
    line = (sys.executable, "-m", "oea_server", "config", *words, "--url", server.url, *given)
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_reads_and_changes(server: Server) -> None:
    told = {**server.config()}
    del told["schema"]  # which `config knobs` prints
    assert json.loads(command(server, "get", key=None).stdout) == told
    done = command(server, "set", "k0=1:8,4:3", "max-rank=16")
    assert done.stdout.splitlines()[:2] == ["k0: auto -> 1:8,4:3", "max_rank: none -> 16"]
    assert command(server, "get", "k0").stdout.strip() == "1:8,4:3"
    assert command(server, "set", "k0=auto", "max_rank=none").returncode == 0
    for words, key, why in (
        (("set", "k0=9"), KEY, "k0=9 guarantees 9 experts, above the model's top-k 8"),
        (("set", "k0"), KEY, "k0: not KNOB=VALUE"),
        (("set", "kO=1"), KEY, "kO: no such knob"),
        (("set", "k0=4"), None, "wants a key"),
        (("get", "kO"), KEY, "kO: no such knob"),
    ):
        refused = command(server, *words, key=key)
        assert refused.returncode == 2
        assert why in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert server.config()["settings"] == server.config()["started_with"]


@pytest.mark.parametrize("examples", [15, pytest.param(60, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("headers", [{}, KEYED], ids=["no-key", "key"])
def test_fuzzing_finds_no_failure(server: Server, headers: dict[str, str], examples: int) -> None:
    """Schemathesis, from the server's own description of /oea."""
    before = server.config()
    flags: list[Any] = [
        "--include-path-regex",
        "^/oea",
        "--max-examples",
        str(examples),
        "--seed",
        "1",
        "--no-color",
    ]
    # FastAPI keeps the methods of one path as routes apart, and names the first one's alone in
    # Allow
    flags += ["--exclude-checks", "allow_header_conformance"]
    for name, value in headers.items():
        flags += ["--header", f"{name}: {value}"]
    tool = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [tool, "--config-file", FUZZING, "run", f"{server.url}/openapi.json", *flags],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout[-6000:])
    assert done.returncode == 0, done.stdout[-6000:]
    if not headers:
        assert server.config() == before
    else:
        assert server.config()["version"] > before["version"]
        Remote(server.url, KEY).steer(**server.config()["started_with"])
    assert generate(server, PROMPTS[0]).ids
