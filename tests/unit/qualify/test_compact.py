"""The compact record: what it leaves out, and that a reader of it misses nothing."""

from __future__ import annotations

import json
from pathlib import Path

from oea_server.lab.qualify import compact, document, judge, pages
from tests.unit.qualify.simulated import Record, record

UNTIMED = {"text", "tpot", "seconds"}


def judged(prompts: int = 200) -> Record:
    return judge.judged(record(prompts, candidates=("k0=1", "k0=3"), discordance=0.2, seeds=2))


def test_what_is_counted_of_it_is_what_is_counted_of_all_answers(tmp_path: Path) -> None:
    full = judged()
    kept = compact.write(tmp_path / "qualify.json", full)
    assert judge.judged(kept)["verdicts"] == full["verdicts"]
    for now, before in zip(kept["answers"], full["answers"], strict=True):
        assert {k: v for k, v in now.items() if k not in UNTIMED} == {
            k: v for k, v in before.items() if k not in UNTIMED
        }


def test_its_pages_are_those_of_all_answers(tmp_path: Path) -> None:
    full = judged()
    for place, answer in enumerate(full["answers"]):
        answer["text"] = f"{place} " + "long " * (place % 300)
    kept = compact.write(tmp_path / "qualify.json", full)
    assert pages.markdown(kept) == pages.markdown(full)
    assert document.document(kept) == document.document(full)


def test_texts_are_kept_of_answers_that_changed_sides_and_it_says_so(tmp_path: Path) -> None:
    full = judged()
    kept = compact.write(tmp_path / "qualify.json", full)
    right = {(a["arm"], a["task"], a["seed"]): a["correct"] for a in full["answers"]}
    for answer in kept["answers"]:
        asked = answer["task"], answer["seed"]
        beside = ["vanilla"] if answer["arm"] != "vanilla" else ["k0=1", "k0=3"]
        changed = any(right[arm, *asked] != answer["correct"] for arm in beside)
        assert ("text" in answer) == changed
    said = json.loads((tmp_path / "qualify.json").read_text())["answers"]["left out"]
    assert "texts of answers that did not change sides" in said


def test_it_is_a_small_part_of_all_answers(tmp_path: Path) -> None:
    full = judged()
    compact.write(tmp_path / "qualify.json", full)
    assert (tmp_path / "qualify.json").stat().st_size < len(json.dumps(full)) / 3


def test_a_record_of_the_older_form_is_read_as_it_is(tmp_path: Path) -> None:
    full = {**judged(20), "form": 1}
    (tmp_path / "old.json").write_text(json.dumps(full, indent=1))
    assert compact.read(tmp_path / "old.json") == json.loads(json.dumps(full))


def test_a_record_without_answers_is_kept_too(tmp_path: Path) -> None:
    bare = judge.judged({**record(20), "answers": []})
    assert compact.write(tmp_path / "qualify.json", bare)["answers"] == []
