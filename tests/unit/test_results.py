"""What lies in git under benchmarks/results: records, and what one command makes of them and a
document shows; nothing else, and nothing older than its record."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.kinds import KINDS, records
from oea_server.lab.qualify import compact, judge
from oea_server.lab.records import files, pictures

ROOT = Path(__file__).parents[2]
MACHINES = sorted(each for each in command.RESULTS.iterdir() if each.is_dir())
QUALIFIED = sorted(command.RESULTS.glob("*/qualify-*.json"))
REMAKE = "make it anew: python -m benchmarks"


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """What is in git under results/, or would be with the next commit."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    done = subprocess.run(words, cwd=command.RESULTS, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no git checkout: {done.stderr.strip()}")
    found = {command.RESULTS / name for name in done.stdout.split("\0") if name}
    return sorted(path for path in found if path.exists())


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    """The pages of all machines, and the table over them."""
    found = dict([command.index_of(command.RESULTS)])
    for machine in MACHINES:
        found |= command.texts(machine)
    return found


def shown_by(pages: list[Path], mark: str) -> set[Path]:
    """The files that links of these pages lead to; with "!" the pictures that they embed."""
    return {
        (page.parent / link.partition("#")[0]).resolve()
        for page in pages
        for link in re.findall(mark + r"\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if not re.match(r"https?:", link)
    }


def test_each_text_is_what_the_command_writes(tracked: list[Path], made: dict[Path, str]) -> None:
    texts = [path for path in tracked if path.suffix not in (".json", ".png")]
    assert sorted(made) == texts, REMAKE
    for path in texts:
        assert path.read_text(encoding="utf-8") == made[path], f"{path.name}: {REMAKE}"


def test_each_page_and_picture_is_shown_by_a_document(tracked: list[Path]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    documents = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    pages = [path for path in tracked if path.suffix == ".md"]
    linked = shown_by(documents, "")
    assert [path.name for path in pages if path not in linked] == []
    embedded = shown_by([*documents, *pages], "!")
    assert {path for path in tracked if path.suffix == ".png"} == {
        path for path in embedded if command.RESULTS in path.parents
    }


def test_no_picture_is_older_than_its_record(tracked: list[Path]) -> None:
    drawn = [path for path in tracked if path.suffix == ".png"]
    assert drawn
    for path in drawn:
        record = files.read(path.with_suffix(".json"))
        assert pictures.made_of(path) == files.digest(record), f"{path.name}: {REMAKE}"


def test_each_record_is_one_compact_line(tracked: list[Path]) -> None:
    kept = [path for path in tracked if path.suffix == ".json"]
    assert len(kept) > 40
    for path in kept:
        assert path.read_text(encoding="utf-8") == files.line(files.read(path)), path.name


@pytest.mark.parametrize("path", QUALIFIED, ids=lambda path: path.stem)
def test_a_verdict_follows_from_the_compact_record(path: Path) -> None:
    record = compact.read(path)
    assert record["form"] == compact.FORM
    assert judge.judged({**record, "verdicts": {}})["verdicts"] == record["verdicts"]


def test_the_command_makes_all_of_a_folder_of_records(tmp_path: Path) -> None:
    """One record of each kind that is drawn or has more than a page; the rest is compared above."""
    names = ("ab-qwen3-30b-4-layers", "serve-qwen3-30b-4-layers", "qualify-gym-qwen3-moe", "soak")
    for name in names:
        path = command.RESULTS / "2-core-x86_64" / f"{name}.json"
        (tmp_path / path.name).write_bytes(path.read_bytes())
    command.main([str(tmp_path)])
    for name, record in records(tmp_path).items():
        kind = KINDS[record["benchmark"]]
        page = tmp_path / f"{name.partition('-')[0]}.md"
        assert f"\n## {name}\n" in page.read_text(encoding="utf-8")
        assert (tmp_path / f"{name}.png").exists() == (kind.draw is not None)
        for suffix in (".html", ".csv"):
            assert (tmp_path / f"{name}{suffix}").exists() == (suffix in kind.more)


def test_floats_keep_seven_digits_and_five_decimals() -> None:
    content = {"a": (1 / 3, 1e-7 / 3, 123456.7890123), "b": [0.0, 3, True, None, float("inf")]}
    assert files.rounded(content) == {
        "a": [0.3333333, 3.333333e-08, 123456.78901],
        "b": [0.0, 3, True, None, float("inf")],
    }
    assert files.rounded(files.rounded(content)) == files.rounded(content)
