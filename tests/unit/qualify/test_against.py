"""A record beside an older one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from oea_server.lab.qualify import against, judge, pages
from tests.unit.qualify.simulated import Record, record


def kept(made: Record, folder: Path) -> Path:
    return pages.write(judge.judged(made), folder)[0]


def test_the_same_answers_are_no_change(tmp_path: Path) -> None:
    made = judge.judged(record(100))
    found = against.compared(made, against.read(kept(record(100), tmp_path), made["plan"]))
    assert [each["arm"] for each in found["against"]["arms"]] == ["vanilla", "k0=1"]
    for each in found["against"]["arms"]:
        assert each["then"] == each["now"]
        assert each["difference"]["won"] == each["difference"]["lost"] == 0
    assert found["verdicts"] == made["verdicts"]
    assert against.changed(found) == []


def test_a_release_that_answers_worse_is_seen_though_vanilla_falls_with_it(tmp_path: Path) -> None:
    """Vanilla and candidate lose alike: `qualify` alone would pass."""
    now = record(400, discordance=0.0)
    for each in now["answers"]:
        each["correct"] = each["correct"] and each["task"] % 5 > 0
        each["round"] = 0  # rounds may be cut otherwise: a prompt and its seed are what counts
    now["versions"] = {"python": "3.12.0"}
    now["settings"] = {"k0": 3}
    made = judge.judged(now)
    found = against.compared(
        made, against.read(kept(record(400, discordance=0.0), tmp_path), made["plan"])
    )
    assert made["verdicts"]["k0=1"]["verdict"] == judge.NO_WORSE
    for each in found["against"]["arms"]:
        assert each["difference"]["high"] < -0.1
    assert against.changed(found) == [
        "python was 3.11.2, and is 3.12.0",
        "k0 was not there, and is 3",
    ]
    for text in (path.read_text() for path in pages.write(found, tmp_path / "now")[2:]):
        assert "Release by release" in text
        assert "python was 3.11.2, and is 3.12.0" in text


def test_a_candidate_that_the_older_one_lacks_is_left_out(tmp_path: Path) -> None:
    made = judge.judged(record(100, candidates=("k0=2", "k0=1")))
    found = against.compared(made, against.read(kept(record(100), tmp_path), made["plan"]))
    assert [each["arm"] for each in found["against"]["arms"]] == ["vanilla", "k0=1"]


def other(change: Callable[[Record], object]) -> str:
    made = copy.deepcopy(judge.judged(record(20)))
    change(made)
    return json.dumps(made)


REFUSED = {
    "{": "is no JSON",
    "[]": "is no record of `oea-server qualify`",
    '{"benchmark": "moe"}': "is no record of `oea-server qualify`",
    other(lambda made: made.update(form=7)): "is of form 7; this version reads forms 1 and 2",
    other(lambda made: made["plan"]["tasks"].update(sha256="cd" * 32)): "asked other tasks",
    other(
        lambda made: made["plan"].update(max_tokens=64)
    ): "asked otherwise: max_tokens was 64, and is 32",
    other(lambda made: made["plan"].update(seed=3)): "asked otherwise: seed was 3, and is 0",
}


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=list(REFUSED.values()))
def test_what_cannot_be_compared_is_refused_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(against.AgainstError, match=f"^--against=[^\n]*{said}[^\n]*$"):
        against.read(path, record(20)["plan"])


def test_so_is_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(against.AgainstError, match="No such file"):
        against.read(tmp_path / "none.json", record(20)["plan"])
    with pytest.raises(against.AgainstError, match="Is a directory"):
        against.read(tmp_path, record(20)["plan"])
