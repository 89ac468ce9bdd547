"""Pages that are made of what they describe, and links between all pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oea_server.lab.reference import knobs, metrics, modules, results, rooms, troubleshooting
from oea_server.lab.reference.arrows import MAY_IMPORT
from oea_server.lab.reference.page import COMMAND, PACKAGE, with_list
from oea_server.settings import LIVE, Settings

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *(ROOT / "docs").glob("*.md"),
]


@pytest.mark.parametrize(
    "made",
    [knobs, metrics, modules, results, rooms, troubleshooting],
    ids=lambda made: made.PAGE.name,
)
def test_a_list_is_what_its_definitions_say(made: object) -> None:
    page = made.PAGE.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert with_list(page, made.entries()) == page, f"make it anew: {COMMAND}"  # type: ignore[attr-defined]


def test_a_knob_has_its_flag_its_bounds_and_whether_it_changes_while_serving() -> None:
    entries = {
        name: " ".join(said.split())
        for name, said in zip(Settings.model_fields, knobs.entries(), strict=True)
    }
    assert "`OEA_P`; default `1.0`; above 0 to 1; changes while serving." in entries["p"]
    assert "default top k; from 1;" in entries["k_max"]
    assert "one of `fill`, `union`, `budget`;" in entries["pool"]
    assert {name for name, entry in entries.items() if "changes while serving" in entry} == set(
        LIVE
    )


def test_a_metric_says_what_it_is_without_the_one_before_it() -> None:
    for each in metrics.defined():
        assert not re.match(r"(Those|These|The same|They|It|This|That)\b", each._documentation), (
            each._name
        )


def test_a_module_says_in_a_sentence_what_it_is() -> None:
    said = {path: modules.said(path) for path in PACKAGE.rglob("*.py")}
    assert [path for path, sentence in said.items() if not sentence.endswith(".")] == []


def test_every_module_is_in_a_room_or_a_file_of_its_own() -> None:
    listed = sum(each.startswith("- ") for each in modules.entries())
    rooms_own = [modules.folder(room) / "__init__.py" for room in MAY_IMPORT]
    above = sum(path.is_file() for path in rooms_own)  # what a room says of itself
    outside = ("__init__.py", "__main__.py", "lab/__init__.py")
    assert listed + above + len(outside) == len(list(PACKAGE.rglob("*.py")))


def test_a_page_that_says_nowhere_where_a_list_belongs_is_no_page() -> None:
    with pytest.raises(ValueError, match="no <!-- made by"):
        with_list("# Knobs\n", [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
