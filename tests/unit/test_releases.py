"""The patch series held to SGLang's releases, and how one is made for a new release."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from oea_server.lab.releases import __main__ as commands
from oea_server.lab.releases import judging, making, sources, touched
from oea_server.patching import series
from tests.unit.test_patching import FILES, VERSION, package

SITE = package().parent
NEXT = "9.9.9"


def test_the_series_of_the_installed_sglang_keeps_every_promise() -> None:
    assert judging.judge(VERSION, SITE)["files"].keys() == set(FILES)


def test_a_series_is_held_to_its_own_release(tmp_path: Path) -> None:
    other = next(each for each in series.versions() if each != VERSION)
    with pytest.raises(judging.UnlikeError, match="git apply 0001-batch-router"):
        judging.judge(other, SITE)
    for name in FILES[1:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SITE / name, tmp_path / name)
    last = tmp_path / FILES[-1]
    last.write_text(last.read_text() + "\n# changed where no patch is\n")
    with pytest.raises(judging.UnlikeError, match="neither as released"):
        judging.judge(VERSION, tmp_path)


def test_the_record_is_of_the_series_as_they_are() -> None:
    recorded = json.loads(commands.RECORD.read_text())["releases"]
    now = {each: judging.digest(each) for each in series.versions()}
    stale = "make it anew: python -m oea_server.lab.releases verify"
    assert {each: found["series"] for each, found in recorded.items()} == now, stale


def test_between_releases_patches_differ_where_it_is_known() -> None:
    recorded = json.loads(commands.RECORD.read_text())["releases"]
    differ = {each: list(found["unlike_the_one_before"]) for each, found in recorded.items()}
    assert {each: found for each, found in differ.items() if found} == {
        "0.5.20": ["0003-absent-experts"],  # view became reshape
        "0.5.21": ["0001-batch-router"],  # SGLang has a bias of its own by step
        "0.5.23": ["0003-absent-experts"],  # SGLang has the dispatcher's half
    }


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder of patches, to write into."""
    folder = tmp_path / "patches"
    shutil.copytree(series.FOLDER, folder)
    monkeypatch.setattr(series, "FOLDER", folder)
    monkeypatch.setattr(series, "TABLE", folder / "series.toml")
    return folder


def releases(folder: Path, change: dict[str, tuple[str, str]]) -> tuple[sources.Release, ...]:
    """The files of the installed SGLang that are patched, and the same with some text replaced."""
    found = []
    for name, changes in ((NEXT, change), (VERSION, {})):
        for file in FILES[1:]:
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            before, after = changes.get(file, ("", ""))
            text = (SITE / file).read_text()
            assert before in text
            (folder / name / file).write_text(text.replace(before, after, 1) if before else text)
        found.append(sources.Release(name, folder / name, ""))
    return tuple(found)


IMPORT, FUNCTION = "from __future__ import annotations\n", "def select_experts("


def test_a_series_is_made_from_the_one_before(table: Path, tmp_path: Path) -> None:
    topk = "sglang/srt/layers/moe/topk.py"
    new, old = releases(tmp_path, {topk: (IMPORT, IMPORT + "\n# a line\n")})
    assert making.make(new, old, tmp_path / "work") == ["0001-batch-router"]
    made = [f"{path.parent.name}/{path.stem}" for path in series.paths(NEXT)]
    before = [f"{path.parent.name}/{path.stem}" for path in series.paths(VERSION)]
    assert made == [f"0001-batch-router/{NEXT}", *before[1:]]
    assert judging.judge(NEXT, new.root)
    assert judging.unlike(NEXT, VERSION) == {}


def test_what_git_cannot_place_is_put_right_by_hand(table: Path, tmp_path: Path) -> None:
    topk = "sglang/srt/layers/moe/topk.py"
    line = "    # Set by the fused-gating+pack branch"
    new, old = releases(tmp_path, {topk: (line, "    changed_by_sglang = True\n" + line)})
    work = tmp_path / "work"
    with pytest.raises(making.ConflictError, match=r"put right in .*\npython/sglang/\S*topk.py\n$"):
        making.make(new, old, work)
    file = work / "python" / topk
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(each for each in lines if not each.startswith(("<<<", "===", ">>>"))))
    for words in (["add", "-A"], ["-c", "core.editor=true", "cherry-pick", "--continue"]):
        subprocess.run(["git", *making.AS_US, *words], cwd=work, check=True, capture_output=True)
    assert making.make(new, old, work) == ["0001-batch-router"]
    assert judging.judge(NEXT, new.root)


def test_every_symbol_that_the_plug_in_touches_is_compared() -> None:
    assert [each for each in touched.symbols() if not touched.source(SITE, each)] == []
    assert not any(lines for _, lines in touched.differences(SITE, SITE))


def test_options_that_came_and_went_are_told(tmp_path: Path) -> None:
    fields = [SITE / "sglang/srt/server_args.py", *(SITE / touched.GROUPS).glob("*.py")]
    for path in fields:
        (tmp_path / path.relative_to(SITE)).parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text().replace("    moe_runner_backend: ", "    moe_runner_kind: ")
        (tmp_path / path.relative_to(SITE)).write_text(text)
    assert touched.options(SITE, tmp_path) == (["moe_runner_kind"], ["moe_runner_backend"])
    shutil.rmtree(tmp_path / "sglang")
    with pytest.raises(ValueError, match="no options in"):
        touched.options(SITE, tmp_path)


def test_what_changed_is_told_by_symbol(tmp_path: Path) -> None:
    new, old = releases(
        tmp_path, {"sglang/srt/layers/moe/topk.py": (FUNCTION, f"{FUNCTION}\n    fresh: int,")}
    )
    found = dict(touched.differences(old.root, new.root))
    symbol = "sglang.srt.layers.moe.topk.select_experts"
    assert "+    fresh: int," in found.pop(symbol)
    assert not any(found.values())


@pytest.mark.nightly
def test_every_series_against_its_wheel() -> None:
    found = {}
    for each in series.versions():
        try:
            found[each] = sources.release(each, sources.KEPT)
        except sources.FetchError as error:
            pytest.skip(str(error))
    recorded = json.loads(commands.RECORD.read_text())["releases"]
    for each, release in found.items():
        verdict = judging.judge(each, release.root)
        assert release.sha256 == recorded[each]["wheel"]
        assert verdict == {name: recorded[each][name] for name in ("series", "files")}


@pytest.mark.nightly
@pytest.mark.parametrize(("new", "old"), [("0.5.18", "0.5.17"), ("0.5.22", "0.5.21")])
def test_what_is_made_is_what_is_there(table: Path, tmp_path: Path, new: str, old: str) -> None:
    try:
        both = [sources.release(each, sources.KEPT) for each in (new, old)]
    except sources.FetchError as error:
        pytest.skip(str(error))
    before = [(path, path.read_bytes()) for path in series.paths(new)]
    making.make(both[0], both[1], tmp_path / "work")
    assert [(path, path.read_bytes()) for path in series.paths(new)] == before


def test_the_installed_one_is_one_of_the_table() -> None:
    assert version("sglang").partition("+")[0] in series.versions()
