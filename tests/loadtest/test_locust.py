"""Locust, headless, in processes of its own, against the stub. Orders and counts; times only as
bounds that hold however slow the machine is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import requests

from oea_server.client import ports
from tests.loadtest.conftest import LOCUST, ROOT, Locust
from tests.loadtest.stub import Stub

GAP = 0.002
TOKENS = 8


def test_a_closed_loop_sends_what_it_was_asked_for(stub: Stub, locust: Locust) -> None:
    seen = locust(
        stub.url,
        "-u",
        "3",
        "-r",
        "3",
        "--requests",
        "12",
        "--tenants",
        f"chat output=fixed:{TOKENS}",
    )
    assert seen.code == 0, seen.output
    figures = seen.figures
    assert figures["counts"] == {"answered": 12, "failed": 0, "cancelled": 0, "cut": 0}
    assert len(stub.bodies) == 12
    assert figures["output_tokens"] == 12 * TOKENS
    assert [figures[f"{name}_s"]["n"] for name in ("ttft", "tpot", "itl", "e2e")] == [
        12,
        12,
        12 * (TOKENS - 1),
        12,
    ]
    assert figures["ttft_s"]["mean"] >= GAP  # not the time to the headers
    assert figures["tpot_s"]["mean"] >= GAP * 0.9
    assert figures["e2e_s"]["mean"] >= TOKENS * GAP
    for kind, count in (("TTFT", 12), ("TPOT", 12), ("ITL", 12 * (TOKENS - 1)), ("E2E", 12)):
        assert f"{kind} chat {count}" in " ".join(seen.output.split()), kind


def test_a_body_is_what_the_official_client_sends(stub: Stub, locust: Locust) -> None:
    assert (
        locust(
            stub.url, "-u", "1", "--requests", "1", "--tenants", "one output=fixed:5 key=sesame"
        ).code
        == 0
    )
    body = stub.bodies[0]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_tokens"], body["ignore_eos"]) == (5, True)
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert stub.keys == ["sesame"]


def test_the_same_seed_asks_the_same(stub: Stub, locust: Locust) -> None:
    for seed in ("1", "1", "2"):
        locust(
            stub.url,
            "-u",
            "1",
            "--requests",
            "4",
            "--seed",
            seed,
            "--tenants",
            "a output=lognormal:10:0.5",
        )
    first, again, other = stub.bodies[:4], stub.bodies[4:8], stub.bodies[8:]
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--ttft-p95", "30", "--tpot-mean", "30", "--e2e-p99", "30", "--itl-p50", "30"), 0, ""),
        (("--ttft-p95", "0.0001"), 1, "missed: ttft p95"),
        (("--tpot-p50", "0.0001"), 1, "missed: tpot p50"),
        (("--itl-p99", "0.0001"), 1, "missed: itl p99"),
        (("--min-tokens-per-s", "1e9"), 1, "missed: tokens per second"),
        (("--model", "refuse"), 1, "missed: failed: 100.00%"),
        (("--model", "refuse", "--max-failures", "1"), 0, ""),
    ],
)
def test_thresholds_set_the_exit_status(
    stub: Stub, locust: Locust, flags: tuple[str, ...], code: int, said: str
) -> None:
    seen = locust(
        stub.url, "-u", "2", "-r", "2", "--requests", "4", "--tenants", "a output=fixed:4", *flags
    )
    assert seen.code == code, seen.output
    assert said in seen.output


def test_thresholds_come_from_the_environment_too(stub: Stub, locust: Locust) -> None:
    variables = {"LOADTEST_E2E_P50": "0.0001", "LOADTEST_REQUESTS": "2"}
    seen = locust(stub.url, "-u", "1", environment=variables)
    assert (seen.code, seen.figures["counts"]["answered"]) == (1, 2)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("refuse", "StreamError: 429: too many"),
        ("cut", "StreamError: the stream ended without [DONE]"),
        ("fail", "StreamError: {'message': 'out of memory', 'type': 'server_error'}"),
    ],
)
def test_what_is_no_answer_fails(stub: Stub, locust: Locust, model: str, why: str) -> None:
    seen = locust(
        stub.url, "-u", "1", "--requests", "2", "--model", model, "--tenants", "a output=fixed:4"
    )
    assert seen.code == 1
    assert seen.figures["counts"]["failed"] == 2
    assert seen.figures["errors"] == {why: 2}
    assert seen.figures["ttft_s"]["n"] == 0


def test_a_server_that_is_not_there_fails(locust: Locust) -> None:
    port = ports.free()
    seen = locust(f"http://127.0.0.1:{port}", "-u", "1", "--requests", "2")
    assert (seen.code, seen.figures["counts"]["failed"]) == (1, 2)


def test_an_open_loop_does_not_wait_for_answers(stub: Stub, locust: Locust) -> None:
    stub.gap["oea"] = 0.1  # an answer takes longer than all arrivals
    seen = locust(
        *(stub.url, "-u", "12", "-r", "100", "--requests", "10", "--open", "constant:20"),
        *("--tenants", "a output=fixed:10"),
    )
    assert seen.code == 0, seen.output
    assert len(stub.began) == 10
    assert stub.began[-1] - stub.began[0] < 0.95  # the first answer takes a second


def test_a_pool_too_small_shows_in_the_times(stub: Stub, locust: Locust) -> None:
    stub.gap["oea"] = 0.05
    flags = (
        "--requests",
        "6",
        "--open",
        "constant:100",
        "--tenants",
        "a output=fixed:4",
        "--late-p95",
        "0.3",
    )
    seen = locust(stub.url, "-u", "1", *flags)
    assert seen.figures["counts"]["answered"] == 6
    assert seen.figures["late_s"]["n"] == 6
    assert seen.code == 1
    assert "missed: late p95" in seen.output
    assert seen.figures["ttft_s"]["p99"] > 0.5  # from when it was due


def test_cancelled_requests_are_neither_answers_nor_failures(stub: Stub, locust: Locust) -> None:
    seen = locust(
        stub.url,
        "-u",
        "4",
        "-r",
        "4",
        "--requests",
        "40",
        "--tenants",
        "a output=fixed:30 cancel=0.5",
    )
    assert seen.code == 0, seen.output
    counts = seen.figures["counts"]
    assert counts["failed"] == 0
    assert counts["answered"] + counts["cancelled"] == 40
    assert 8 <= counts["cancelled"] <= 32
    deadline = time.monotonic() + 10
    while stub.left < counts["cancelled"] and time.monotonic() < deadline:
        time.sleep(0.05)
    # the server saw them leave; some had all but the end
    assert stub.left > 0.5 * counts["cancelled"]


def test_tenants_share_the_users_and_turns_share_their_past(stub: Stub, locust: Locust) -> None:
    tenants = "talk weight=1 turns=3 prefix=40 output=fixed:3; once weight=1 output=fixed:5"
    seen = locust(stub.url, "-u", "8", "-r", "8", "--requests", "48", "--tenants", tenants)
    assert seen.code == 0, seen.output
    talk = [body["messages"] for body in stub.bodies if body["max_tokens"] == 3]
    assert talk
    assert len(talk) < 48
    assert len({messages[0]["content"] for messages in talk}) == 1  # the shared prefix
    assert {messages[0]["role"] for messages in talk} == {"system"}
    longest = max(talk, key=len)
    assert [m["role"] for m in longest] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert longest[2]["content"] == "t0 t1 t2 "


def test_workers_share_a_run(stub: Stub, locust: Locust) -> None:
    port = str(ports.free())
    workers = [
        subprocess.Popen(
            [*LOCUST, "--worker", "--master-host", "127.0.0.1", "--master-port", port], cwd=ROOT
        )
        for _ in range(2)
    ]
    try:
        seen = locust(
            *(
                stub.url,
                "--master",
                "--master-bind-port",
                port,
                "--expect-workers",
                "2",
                "-u",
                "4",
                "-r",
                "4",
            ),
            *("--requests", "21", "--tenants", "a output=fixed:6", "--ttft-p50", "0.0001"),
        )
        assert seen.figures["counts"]["answered"] == 21, seen.output
        assert seen.figures["itl_s"]["n"] == 21 * 5
        assert seen.code == 1  # the master judges
        # nobody asks what another asks
        assert len({body["messages"][0]["content"] for body in stub.bodies}) == 21
        assert [worker.wait(20) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--tenants", "a prompt=fixed:0"),
            "tenant a: prompt=fixed:0: prompt=fixed:0: is none of fixed:TOKENS",
        ),
        (("--tenants", "a prompts=1"), "tenant a: prompts=1: none of: weight=3"),
        (("--tenants", "a; a"), "--tenants: a name stands twice"),
        (("--tenants", ";"), "--tenants: names none"),
        (("--open", "ramp:1"), "ramp:1: is none of constant:RATE"),
        (("--requests", "-1"), "--requests: below 0"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    locust: Locust, flags: tuple[str, ...], said: str
) -> None:
    seen = locust("http://127.0.0.1:9", "-u", "1", *flags)
    assert seen.code == 1
    assert f"loadtest: {said}" in seen.output


def test_the_web_page_starts_a_run(stub: Stub) -> None:
    port = str(ports.free())
    command = [
        *LOCUST,
        "--host",
        stub.url,
        "--web-host",
        "127.0.0.1",
        "--web-port",
        port,
        "--requests",
        "3",
    ]
    web = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        page = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                requests.get(page, timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        form = {"user_count": 1, "spawn_rate": 1, "tenants": "web output=fixed:4"}
        assert requests.post(f"{page}/swarm", data=form, timeout=10).json()["success"]
        deadline = time.monotonic() + 20
        while len(stub.bodies) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        web.send_signal(signal.SIGTERM)
        output, _ = web.communicate(timeout=20)
        assert '"answered": 3' in output
        assert stub.bodies[0]["max_tokens"] == 4
        assert web.returncode == 0
    finally:
        web.kill()
        web.wait()


def test_oea_server_does_not_import_locust() -> None:
    check = (
        "import sys, oea_server.cli, oea_server.lab.bench.commands, oea_server.lab.demo.compare; "
        "sys.exit('gevent' in sys.modules or 'locust' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
