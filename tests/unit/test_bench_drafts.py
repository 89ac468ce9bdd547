"""`bench serve --speculative`: what its record says besides, and the page and picture made from
it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oea_server.client.remote import Remote
from oea_server.lab.bench import drafts, report
from oea_server.lab.bench.load import Load, repetitive
from oea_server.lab.bench.rounds import Rounds
from oea_server.lab.bench.serve import _row
from oea_server.lab.records.options import OptionError
from tests.heard import Heard, hearing

METRICS = """# TYPE sglang:spec_verify_calls counter
sglang:spec_verify_calls_total{model_name="a"} 5.0
sglang:spec_verify_calls_total{model_name="b"} 2.0
sglang:generation_tokens_total{model_name="a"} 90.0
"""


def answering(monkeypatch: pytest.MonkeyPatch, **reply: Any) -> Any:
    """A server that answers everything with this."""
    given = SimpleNamespace(raise_for_status=lambda: None, **reply)
    monkeypatch.setattr(drafts, "ask", lambda *args, **kwargs: given)
    return SimpleNamespace(url="http://127.0.0.1:1", key=None)


def test_verify_passes_are_sglangs_own_count() -> None:
    with hearing(Heard(answer=METRICS.encode())) as server:
        assert drafts.passes(Remote(server.url)) == 7.0


def test_a_server_says_how_it_drafts_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": 4}
    assert drafts.of(answering(monkeypatch, json=lambda: said)) == ("NGRAM", 4)
    with pytest.raises(
        OptionError, match=r"^--speculative: the server at --url verifies no drafts: it needs"
    ):
        drafts.of(answering(monkeypatch, json=lambda: {"speculative_algorithm": None}))


def test_each_chat_of_a_round_asks_for_its_own_list_and_the_same_in_each_round() -> None:
    first = [repetitive(place) for place in range(3)]
    assert first == [repetitive(place) for place in range(3)]
    assert len({each.prompt for each in first}) == 3
    assert {each.temperature for each in first} == {0.0}


def rounds(steps: list[float], accepted: list[float], experts: float) -> Rounds:
    n = len(steps)
    loads = [Load([0.1], [step / 2], [step, step], 20.0) for step in steps]
    return Rounds(loads, [experts] * n, [8.0] * n, [1.0] * n, steps, accepted)


def test_the_page_says_what_was_accepted_and_what_a_step_took_over_vanilla(tmp_path: Path) -> None:
    vanilla = rounds([0.1, 0.2, 0.4], [2.0, 2.5, 3.0], 40.0)
    ours = rounds([0.05, 0.16, 0.2], [1.5, 2.0, 2.5], 20.0)
    made = [_row("vanilla", 2, vanilla, vanilla, 50.0), _row("oea:3", 2, ours, vanilla, 50.0)]
    assert (made[1]["accept_length"], made[1]["accept_length_quartiles"]) == (2.0, [1.75, 2.25])
    assert (made[1]["step_over_vanilla"], made[1]["step_over_vanilla_quartiles"]) == (
        0.5,
        pytest.approx([0.5, 0.65]),
    )
    record = {
        "benchmark": "serve",
        "command": "oea-server bench serve --speculative",
        "machine": {"name": "m", "processor": "p", "cores": 2, "memory_gib": 15},
        "versions": {"sglang": "0"},
        "model": {"name": "four-layers", "layers": 4, "bytes_per_expert": 9437184},
        "tokens": 64,
        "repeats": 3,
        "seed": 0,
        "bandwidth": {"gb_per_s": 30.0},
        "drafts": drafts.Drafts("NGRAM", 4)._asdict(),
        "rows": made,
    }
    paths = report.save(json.loads(json.dumps(record)), tmp_path, "serve")
    page = paths[1].read_text()
    assert "# A live server, four-layers, with drafts: m" in page
    assert "Drafts by NGRAM: a step is a verify pass, in which each request has 4 rows." in page
    assert (
        "| oea:3 | 2 | 20.0 | 1.000 | 8.0 | 2.00 (1.75–2.25) | 160 (105–180) | 0.50 (0.50–0.65) |"
        in page
    )
    assert paths[2].stat().st_size > 10_000
