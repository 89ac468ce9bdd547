"""Whatever may lie in a folder of metrics beside this start's own files: passed over, and said
once."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from oea_server.observe import mergeable, quiet, snapshot
from oea_server.observe.metrics import Metrics
from oea_server.observe.reporter import Options, Reporter
from oea_server.observe.stats import Stats
from tests.unit.counted import Scheduler, state

STEPS = 3
LAST = "9999999999.oea"
"""The name of a snapshot that is looked at after the start's own."""


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A start's folder, with the snapshot of one scheduler that made three steps."""
    (place := tmp_path / "oea-mine").mkdir()
    report(place)
    return place


def report(place: Path, scheduler: Scheduler | None = None) -> Reporter:
    scheduler = scheduler or Scheduler()
    scheduler.tally.add_vanilla(
        next(iter(scheduler.tally.row)), torch.tensor([[0, 1], [2, 3]]), None
    )
    scheduler.steps = [(2, 0.01)] * STEPS
    reporting = Reporter(Metrics(CollectorRegistry()), scheduler.counted, Options(folder=place))
    reporting.report()
    return reporting


def head_of(place: Path, path: Path) -> tuple[dict[str, object], bytes]:
    """The start's own snapshot, as another process of it would have written it."""
    line, _, body = own(place).read_bytes().partition(b"\n")
    return {**json.loads(line), "pid": int(path.stem)}, body


def content_of(place: Path, path: Path) -> bytes:
    head, body = head_of(place, path)
    return json.dumps(head).encode() + b"\n" + body


def own(place: Path) -> Path:
    return place / f"{os.getpid()}.oea"


def changed(**fields: object) -> Callable[[Path, Path], None]:
    """A snapshot like the start's own, with other fields in its head."""

    def put(place: Path, path: Path) -> None:
        head, body = head_of(place, path)
        path.write_bytes(json.dumps({**head, **fields}).encode() + b"\n" + body)

    return put


def without(field: str) -> Callable[[Path, Path], None]:
    def put(place: Path, path: Path) -> None:
        head, body = head_of(place, path)
        del head[field]
        path.write_bytes(json.dumps(head).encode() + b"\n" + body)

    return put


def containing(content: bytes) -> Callable[[Path, Path], None]:
    def put(place: Path, path: Path) -> None:
        path.write_bytes(content)

    return put


def another_starts(place: Path, path: Path) -> None:
    (other := place.parent / "oea-other").mkdir()
    report(other)
    path.write_bytes(content_of(other, path))


def of_another_model(place: Path, path: Path) -> None:
    (other := place.parent / "other" / place.name).mkdir(parents=True)
    report(other, Scheduler(num_experts=64))
    path.write_bytes(content_of(other, path))


def copied(place: Path, path: Path) -> None:
    path.write_bytes(own(place).read_bytes())


def cut(place: Path, path: Path) -> None:
    path.write_bytes(content_of(place, path)[:-8])


def longer(place: Path, path: Path) -> None:
    path.write_bytes(content_of(place, path) + bytes(8))


def huge(place: Path, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def link(place: Path, path: Path) -> None:
    path.symlink_to(own(place))


def link_to_nothing(place: Path, path: Path) -> None:
    path.symlink_to(place / "nothing")


def pipe(place: Path, path: Path) -> None:
    os.mkfifo(path)


def subfolder(place: Path, path: Path) -> None:
    path.mkdir()


def empty(place: Path, path: Path) -> None:
    path.touch()


def of_an_earlier_version(place: Path, path: Path) -> None:
    head, body = head_of(place, path)
    del head["launch"], head["at"]
    path.write_bytes(json.dumps({**head, "t": 1.0}).encode() + b"\n" + body)


def cut_in_its_head(place: Path, path: Path) -> None:
    path.write_bytes(content_of(place, path)[:40])


ANYTHING: dict[str, Callable[[Path, Path], None]] = {
    "empty": empty,
    "zeros, as after a power cut": containing(bytes(65536)),
    "text": containing(b"not a snapshot\n"),
    "no text": containing(bytes(range(256)) * 100),
    "huge": huge,
    "link": link,
    "link to nothing": link_to_nothing,
    "pipe": pipe,
    "folder": subfolder,
}
SNAPSHOTS: dict[str, Callable[[Path, Path], None]] = {
    **ANYTHING,
    "JSON of another kind": containing(b"[1, 2]\n"),
    "JSON too deep": containing(b"[" * 100_000),
    "of an earlier version": of_an_earlier_version,
    "another start's": another_starts,
    "a copy of its own": copied,
    "a whole one, of no number": changed(pid="x"),
    "cut": cut,
    "cut in its head": cut_in_its_head,
    "longer": longer,
    "no shapes": without("shapes"),
    "no configuration": changed(state={}),
    "more layers than rows": changed(layers=[0, 1]),
    "more layers than sizes": changed(expert_bytes=[]),
    "shapes of less than nothing": changed(shapes=[[-1, -74], [1, 74]]),
    "shapes of no histograms": changed(shapes=[[1, 72], [1, 76]]),
    "shapes that are none": changed(shapes="wide"),
    "steps that are none": changed(steps="many"),
    "fewer than no steps": changed(steps=-5),
    "not a time": changed(at=None),
    "not a number": changed(at=float("nan")),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("first", [True, False])
def test_a_file_that_is_no_snapshot_of_ours_is_passed_over_and_said_once(
    name: str, first: bool, start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = start / ("0.oea" if first else LAST)
    SNAPSHOTS[name](start, path)
    stats = Stats(start)
    with caplog.at_level(logging.INFO):
        for second in range(5):
            stats.look(second, second)
    total = stats.body(state())["total"]
    assert (total["steps"], total["tokens"]) == (STEPS, 2)
    (line,) = caplog.messages
    assert line.startswith(f"OEA: /oea/stats passed over {path}: ")
    assert "\n" not in line


def test_the_counts_of_two_models_do_not_add_up(
    start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    of_another_model(start, start / LAST)
    stats = Stats(start)
    stats.look(1.0, 1.0)
    assert stats.body(state())["total"]["steps"] == STEPS
    assert caplog.messages == [
        f"OEA: /oea/stats passed over {start / LAST}: of another shape than the others"
    ]


def test_another_process_of_the_start_counts(start: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed()(start, start / LAST)
    assert len(snapshot.read_all(start).snapshots) == 2


def test_it_is_said_again_of_a_file_that_comes_back(
    start: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stats, path = Stats(start), start / "0.oea"
    for second in range(3):
        path.touch()
        stats.look(second, second)
        path.unlink()
        stats.look(second, second)
    assert len(caplog.messages) == 3


def test_a_folder_that_has_gone_leaves_what_was_seen(start: Path) -> None:
    stats = Stats(start)
    stats.look(1.0, 1.0)
    own(start).unlink()
    start.rmdir()
    stats.look(2.0, 2.0)
    assert stats.body(state())["total"]["steps"] == STEPS


def test_a_snapshot_is_for_its_user_alone(start: Path) -> None:
    assert own(start).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in start.iterdir()] == [own(start).name]


def test_a_planted_link_is_not_followed(start: Path) -> None:
    (victim := start.parent / "victim").write_text("precious")
    for name in (own(start), own(start).with_suffix(".new")):
        name.unlink(missing_ok=True)
        name.symlink_to(victim)
    report(start)
    assert victim.read_text() == "precious"
    assert not own(start).is_symlink()
    assert len(snapshot.read_all(start).snapshots) == 1


def test_what_was_left_half_written_is_written_anew(start: Path) -> None:
    own(start).with_suffix(".new").write_bytes(b"half")
    report(start)
    assert len(snapshot.read_all(start).snapshots) == 1


def test_a_snapshot_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    place = tmp_path / "oea-late"
    scheduler = Scheduler()
    scheduler.steps = [(2, 0.01)]
    reporting = Reporter(Metrics(CollectorRegistry()), scheduler.counted, Options(folder=place))
    with pytest.raises(FileNotFoundError):
        reporting.report()
    place.mkdir()
    reporting.report()  # nothing new
    (found,) = snapshot.read_all(place).snapshots
    assert found.steps == 1


def test_equal_process_ids_in_two_folders_are_two(tmp_path: Path) -> None:
    """As of two containers that share the given folder."""
    bodies = []
    for name in ("oea-one", "oea-other"):
        (tmp_path / name).mkdir()
        report(tmp_path / name)
    for name in ("oea-one", "oea-other"):
        stats = Stats(tmp_path / name)
        stats.look(1.0, 1.0)
        bodies.append(stats.body(state()))
    assert [body["total"]["steps"] for body in bodies] == [STEPS, STEPS]


@pytest.fixture
def collected(start: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """/metrics of a start with two processes that counted 2 and 3."""
    for pid, value in ((7, 2.0), (8, 3.0)):
        metric(start / f"counter_{pid}.db", value)
    monkeypatch.setattr(MultiProcessCollector, "merge", staticmethod(MultiProcessCollector.merge))
    mergeable.skip_the_rest(start)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(start))
    return lambda: generate_latest(registry).decode()


def metric(path: Path, value: float) -> None:
    file = MmapedDict(str(path))
    file.write_value(mmap_key("tokens", "tokens_total", [], [], "tokens"), value, 0.0)
    file.close()


def test_with_nothing_else_there_all_is_merged(collected: Callable[[], str]) -> None:
    assert "\ntokens_total 5.0\n" in collected()


@pytest.mark.parametrize("kind", [name for name in ANYTHING if "zeros" not in name])
@pytest.mark.parametrize("name", ["counter_1.db", "gauge_min_9.db", "gauge_9.db", "notes.db"])
def test_a_file_that_cannot_be_merged_is_passed_over_and_said_once(
    kind: str,
    name: str,
    start: Path,
    collected: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ANYTHING[kind](start, start / name)
    for _ in range(3):
        assert "\ntokens_total 5.0\n" in collected()
    (line,) = caplog.messages
    assert line.startswith(f"OEA: /metrics passed over {start / name}: ")


@pytest.mark.parametrize(
    "pid", [1, 999_999_999], ids=["of a process that runs", "of none that runs"]
)
def test_a_file_that_its_process_does_not_write_is_passed_over_and_said_once(
    pid: int, start: Path, collected: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    (path := start / f"counter_{pid}.db").write_bytes((start / "counter_7.db").read_bytes())
    for _ in range(3):
        assert "\ntokens_total 5.0\n" in collected()
    assert caplog.messages == [f"OEA: /metrics passed over {path}: no process of that id writes it"]


def test_a_file_of_a_process_that_comes_later_counts_even_when_that_is_over(
    start: Path, collected: Callable[[], str]
) -> None:
    assert "\ntokens_total 5.0\n" in collected()
    program = """if True:
        import os, sys
        from pathlib import Path
        from prometheus_client.mmap_dict import MmapedDict, mmap_key
        file = MmapedDict(str(Path(sys.argv[1]) / f"counter_{os.getpid()}.db"))
        file.write_value(mmap_key("tokens", "tokens_total", [], [], "tokens"), 4.0, 0.0)
        print(flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", program, str(start)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert "\ntokens_total 9.0\n" in collected()
        worker.communicate()
    assert "\ntokens_total 9.0\n" in collected()


def test_a_file_of_zeros_holds_nothing(start: Path, collected: Callable[[], str]) -> None:
    (start / "counter_1.db").write_bytes(bytes(65536))
    assert "\ntokens_total 5.0\n" in collected()


def test_one_that_is_cut_is_passed_over(start: Path, collected: Callable[[], str]) -> None:
    content = (start / "counter_7.db").read_bytes()
    (start / "counter_6.db").write_bytes(content[:60])
    assert "\ntokens_total 5.0\n" in collected()


def test_a_failure_that_goes_on_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    failures = quiet.Failures(logging.getLogger("test"), "a look failed")
    with caplog.at_level(logging.INFO):
        for _ in range(150):
            failures.failed(ValueError("no"))
            now += 1.0
        failures.succeeded()
        failures.succeeded()
    assert caplog.messages == [
        "OEA: a look failed",
        "OEA: a look failed, 61 times by now: ValueError: no",
        "OEA: a look failed, 121 times by now: ValueError: no",
        "OEA: it works again, after 150 failures: a look failed",
    ]
    assert [record.exc_info is not None for record in caplog.records] == [True, False, False, False]


@pytest.mark.parametrize("what", ["reports", "looks"])
def test_the_loops_go_on_after_failures_and_do_not_fill_the_log(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = iter(range(20))

    class Over(BaseException):
        pass

    def sleep(_: float) -> None:
        if next(rounds, None) is None:
            raise Over

    def fail(*_: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(snapshot, "write", fail)
    monkeypatch.setattr(snapshot, "read_all", fail)
    reports = Reporter(Metrics(CollectorRegistry()), Scheduler().counted, Options(folder=tmp_path))
    run = reports.run if what == "reports" else Stats(tmp_path)._run
    with pytest.raises(Over):
        run()
    assert len(caplog.messages) == 1
