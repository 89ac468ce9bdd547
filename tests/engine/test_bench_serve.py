"""`oea-server bench serve` against a server that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oea_server.cli import app
from oea_server.client.remote import Remote
from tests.servers import LAYERS, SETTLE, Servers


@pytest.mark.server("k3")
def test_a_running_server_is_measured_and_left_as_it_was(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = servers.get("k3")
    monkeypatch.setattr(Remote, "settle", SETTLE)
    before = server.config()["settings"]
    flags = ["--batch", "2,4", "--policies", "vanilla,oea:2", "--tokens", "12", "--repeats", "3"]
    done = CliRunner().invoke(
        app, ["bench", "serve", "--url", server.url, *flags, "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("serve-*.json")
    record = json.loads(path.read_text())
    assert [(row["policy"], row["batch"]) for row in record["rows"]] == [
        ("vanilla", 2),
        ("oea:2", 2),
        ("vanilla", 4),
        ("oea:2", 4),
    ]
    for row in record["rows"]:
        assert 1 <= row["tokens_in_a_step"] <= row["batch"]
        assert row["unique_experts"] <= (8 if row["policy"] == "vanilla" else 2) * row["batch"]
        assert row["latency_us"] > 0 < row["floor_us"]
    by_policy = {(row["policy"], row["batch"]): row for row in record["rows"]}
    assert by_policy["oea:2", 4]["unique_experts"] < by_policy["vanilla", 4]["unique_experts"]
    assert by_policy["vanilla", 4]["mass_kept"] == 1 > by_policy["oea:2", 4]["mass_kept"]
    assert record["model"]["layers"] == LAYERS
    assert f"| {by_policy['oea:2', 4]['mass_kept']:.3f} |" in path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert server.config()["settings"] == before
    assert server.url not in path.read_text()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--url", "http://127.0.0.1:9"), "--url=http://127.0.0.1:9: no oea-server answers there"),
        (("--layers", "0"), "--layers=0: 0 is outside 1..48"),
        (("--tokens", "4"), "--tokens=4: 4 is outside 8..1024"),
        (("--policies", "oea"), "--policies=oea: needs a k0 of 1..8"),
    ],
)
def test_wrong_options_are_one_line(flags: tuple[str, ...], problem: str) -> None:
    done = CliRunner().invoke(app, ["bench", "serve", *flags])
    assert done.exit_code == 2
    assert problem in done.output


@pytest.mark.server("k3")
def test_a_server_without_drafts_is_refused_in_one_line(servers: Servers) -> None:
    server = servers.get("k3")
    done = CliRunner().invoke(app, ["bench", "serve", "--speculative", "--url", server.url])
    assert done.exit_code == 2
    assert "--speculative: the server at --url verifies no drafts" in done.output
