"""A/B on the stub, whose policies are as fast and as wide as the test says; and the page it
writes."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest import ab, report, workload
from loadtest.cli import app
from loadtest.client import play
from loadtest.stream import StreamError
from oea_server.client.remote import Remote
from tests.loadtest.conftest import ROOT
from tests.loadtest.stub import Stub

TENANT = workload.parse("t output=fixed:12 prompt=lognormal:20:0.5")


def plan(a: str, b: str, pairs: int = 10) -> ab.Plan:
    return ab.Plan(ab.knobs(a), ab.knobs(b), TENANT, pairs, 4, 4, 0)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch, stub: Stub) -> None:
    """The stub's counters are never late."""
    monkeypatch.setattr(stub.remote, "settled_metrics", stub.remote.metrics)


def test_oea_against_vanilla(stub: Stub) -> None:
    stub.gap |= {"vanilla": 0.03, "oea": 0.01}
    record = ab.measure(stub.remote, plan("policy=vanilla", "policy=oea,k0=3"))
    rows = {row["name"]: row for row in record["rows"]}
    assert list(rows) == [each.name for each in ab.MEASURES]
    assert (rows["unique_experts"]["a"], rows["unique_experts"]["b"]) == (80, 40)
    assert (rows["mass_kept"]["a"], rows["mass_kept"]["b"]) == (1, 0.875)
    assert rows["unique_experts"]["ratio"] == 0.5
    for name in ("tpot_p50", "itl_p50", "tokens_per_s", "unique_experts", "mass_kept"):
        assert rows[name]["significant"], name
    assert rows["tpot_p50"]["ratio_high"] < 1 < rows["tokens_per_s"]["ratio_low"]
    assert not rows["tokens_in_a_step"]["significant"]


def test_each_block_is_steered_and_the_server_is_left_as_found(stub: Stub) -> None:
    stub.settings |= {"policy": "shadow", "k0": "5"}
    stub.gap["shadow"] = 0.001
    ab.measure(stub.remote, plan("policy=oea", "policy=vanilla,k0=3", pairs=4))
    a, b = {"policy": "oea", "k0": "5"}, {"policy": "vanilla", "k0": 3}
    assert len(stub.steered) == 2 * 5 + 1
    # pairs; the first warms up
    assert all(stub.steered[i : i + 2] in ([a, b], [b, a]) for i in range(0, 10, 2))
    assert stub.steered[-1] == {"policy": "shadow", "k0": "5"}
    assert stub.settings["policy"] == "shadow"


def test_a_refused_configuration_is_an_error_and_undone(stub: Stub) -> None:
    with pytest.raises(RuntimeError, match="no such knob"):
        ab.measure(stub.remote, plan("policy=vanilla", "policy=oea,kk=1", pairs=2))
    assert stub.settings == {"policy": "oea", "k0": "auto", "min_batch": 2}


def test_a_share_of_the_requests_may_wish_to_be_exact(stub: Stub) -> None:
    record = ab.measure(stub.remote, plan("policy=oea", "policy=oea,exact=0.25", pairs=2))
    wished = [body.get("custom_params") for body in stub.bodies]
    # one of four, in three blocks of B
    assert sum(each == {"oea": {"exact": True}} for each in wished) == 3
    assert sum(each is not None for each in wished) == 3
    assert all("exact" not in knobs for knobs in stub.steered)
    assert record["arms"]["b"]["exact"] == 0.25
    with pytest.raises(ValueError, match="exact=2: not a share"):
        ab.measure(stub.remote, plan("policy=oea", "policy=oea,exact=2", pairs=2))


def test_both_blocks_of_a_pair_ask_for_the_same_lengths(stub: Stub) -> None:
    ab.measure(stub.remote, plan("policy=vanilla", "policy=vanilla", pairs=2))
    lengths = [
        sorted(body["max_tokens"] for body in stub.bodies[i : i + 4]) for i in range(0, 24, 4)
    ]
    assert lengths[0::2] == lengths[1::2]
    assert len({json.dumps(body["messages"]) for body in stub.bodies}) == 24  # and no prompt twice


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("policy=vanilla", {"policy": "vanilla"}),
        ("policy=oea,k0=3", {"policy": "oea", "k0": 3}),
        (
            "k0=1:8,2:6,16:3, max-rank=none,p=0.5",
            {"k0": "1:8,2:6,16:3", "max_rank": None, "p": 0.5},
        ),
        ("k0=1:8,16:3; 0-3=8,policy=oea", {"k0": "1:8,16:3; 0-3=8", "policy": "oea"}),
    ],
)
def test_knobs(text: str, found: ab.Knobs) -> None:
    assert ab.knobs(text) == found


@pytest.mark.parametrize("text", ["", "policy", "=3", "policy=oea,k0"])
def test_wrong_knobs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not KNOB=VALUE"):
        ab.knobs(text)


def test_orders_are_balanced_and_seeded() -> None:
    orders = ab.orders(40, 0)
    assert orders == ab.orders(40, 0)
    assert orders != ab.orders(40, 1)
    assert orders.count(("a", "b")) == 20
    assert all(orders[i] == orders[i + 1][::-1] for i in range(0, 40, 2))  # ABBA or BAAB
    assert len(set(orders[0::2])) == 2


def test_a_block_with_an_unanswered_request_is_none(stub: Stub) -> None:
    asks = [next(workload.conversation(TENANT, 0, "u", i)) for i in range(3)]
    with pytest.raises(ExceptionGroup) as caught:
        play(stub.url, asks, 2, model="cut")
    assert caught.group_contains(StreamError, match="ended without")


def test_the_command_and_its_page(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Remote, "settled_metrics", Remote.metrics)
    flags = [
        "--url",
        stub.url,
        "--pairs",
        "2",
        "--chats",
        "2",
        "--requests",
        "2",
        "--tenant",
        "t output=fixed:4",
    ]
    done = CliRunner().invoke(app, ["ab", *flags, "--out", str(tmp_path), "--null"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "ab-null.json").read_text())
    assert record["arms"]["a"] == record["arms"]["b"] == {"policy": "vanilla"}
    assert stub.url not in json.dumps(record)  # whose server it was is nobody's business
    assert "--null" in record["command"]
    assert {"python", "torch", "sglang"} <= set(record["versions"])
    page = (tmp_path / "ab-null.html").read_text()
    # nothing from elsewhere
    assert re.findall(r"(?:https?:)?//[\w.]+", re.sub(r"base64,[\w+/=]+", "", page)) == []
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    lines = list(csv.DictReader(io.StringIO((tmp_path / "ab-null.csv").read_text())))
    assert [(line["pair"], line["arm"]) for line in lines] == [
        (str(b["pair"]), b["arm"]) for b in record["blocks"]
    ]
    assert (tmp_path / "ab-null.md").read_text() == report.markdown(record)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("ab", "--a", "policy"), "loadtest: policy: 'policy' is not KNOB=VALUE"),
        (("ab", "--tenant", "t output=x"), "loadtest: tenant t: output=x: output=x: is none of"),
        (("ab", "--url", "http://127.0.0.1:9"), "loadtest: "),
        (("chaos", "nonsense"), "loadtest: nonsense: no such fault; there are malformed"),
    ],
)
def test_a_wrong_option_is_one_line(flags: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
