"""Blocks by turns on a stub: who is asked what, in which order, what is kept, and that the knobs go
back."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from oea_server.lab.qualify import candidates, play, stopping, target
from oea_server.lab.qualify.asking import AskingError, Manner
from oea_server.lab.qualify.keeping import ANSWERS, KeepingError, Kept
from oea_server.lab.qualify.play import Run
from oea_server.lab.qualify.target import TargetError
from oea_server.lab.qualify.tasks import Task
from tests.loadtest.stub import Stub
from tests.unit.qualify.stub import Answering

TASKS = [Task(prompt=f"say {number}", answer=f"{number}") for number in range(12)]
IDENTITY = {"margin": 0.02}


def run(
    *texts: str, tasks: list[Task] = TASKS, rounds: int = 3, seeds: int = 1, **manner: Any
) -> Run:
    said = Manner(
        **{"model": "stub", "max_tokens": 16, "temperature": 0.0, "completions": False, **manner}
    )
    return Run(tasks, candidates.read(texts or ["k0=1"]), said, 2, rounds, seeds, seed=7)


def played(stub: Answering, tmp_path: Path, what: Run) -> Kept:
    kept = Kept(tmp_path / "out", IDENTITY)
    play.play(target.examine(stub.remote), what, kept, lambda: [f"after {len(kept.answers)}"])
    return kept


def test_each_arm_answers_each_task_once_a_round_with_the_same_questions(
    stub: Answering, tmp_path: Path
) -> None:
    kept = played(stub, tmp_path, run("k0=1", "k0=3"))
    arms = ("vanilla", "k0=1", "k0=3")
    assert Counter(each["arm"] for each in kept.answers) == dict.fromkeys(arms, 12)
    assert all(each["correct"] and each["tokens"] == 2 for each in kept.answers)
    assert {each["round"] for each in kept.blocks} == {0, 1, 2}
    for number in range(3):
        asked = [
            [a["task"] for a in kept.answers if (a["arm"], a["round"]) == (arm, number)]
            for arm in arms
        ]
        assert asked[0] == asked[1] == asked[2]
        assert len(asked[0]) == 4
    assert sorted(each["task"] for each in kept.answers if each["arm"] == "vanilla") == list(
        range(12)
    )


def test_after_each_round_but_the_last_it_says_how_it_stands(
    stub: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played(stub, tmp_path, run(rounds=3))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("after")]
    assert said == ["after 8", "after 16"]


def test_the_order_is_drawn_anew_each_round_and_by_the_seed() -> None:
    names = ["vanilla", "k0=1", "k0=3"]
    orders = [tuple(run().order(number, names)) for number in range(40)]
    assert orders == [tuple(run().order(number, names)) for number in range(40)]
    assert len(set(orders)) == 6
    assert [q.place for q in run().parts()[0]] == [q.place for q in run().parts()[0]]


@pytest.mark.parametrize(("tasks", "rounds", "of"), [(12, 8, 3), (12, 1, 1), (3, 8, 1), (16, 4, 4)])
def test_blocks_stay_full(tasks: int, rounds: int, of: int) -> None:
    parts = run(tasks=[TASKS[0]] * tasks, rounds=rounds).parts()
    assert len(parts) == of
    assert sum(map(len, parts)) == tasks


def test_a_block_is_measured_by_the_servers_counters(stub: Answering, tmp_path: Path) -> None:
    blocks = played(stub, tmp_path, run()).blocks
    by_arm = {arm: [each for each in blocks if each["arm"] == arm] for arm in ("vanilla", "k0=1")}
    assert {each["unique"] for each in by_arm["vanilla"]} == {80.0}
    assert {each["unique"] for each in by_arm["k0=1"]} == {40.0}
    assert {each["mass_kept"] for each in by_arm["k0=1"]} == {0.875}
    assert {each["batch"] for each in blocks} == {8.0}
    assert all(
        each["tpot"] > 0 and each["tokens_per_s"] > 0 and each["seconds"] > 0 for each in blocks
    )


def test_nothing_decoded_is_not_measured() -> None:
    figures = play.figures_of([], {}, {}, 1.0)
    assert {
        name: figures[name] for name in ("batch", "unique", "mass_kept", "tpot")
    } == dict.fromkeys(("batch", "unique", "mass_kept", "tpot"))


def test_the_server_is_left_as_it_was_found(stub: Answering, tmp_path: Path) -> None:
    stub.settings |= {"policy": "shadow", "k0": "5"}
    played(stub, tmp_path, run("k0=1"))
    assert stub.steered[-1] == {"policy": "shadow", "k0": "5"}
    assert {"policy": "oea", "k0": 1} in stub.steered


def test_prompts_are_prefilled_before_the_first_arm(stub: Answering, tmp_path: Path) -> None:
    """Else the arm that comes first in a round pays for the prompts, and the others find them
    cached."""
    played(stub, tmp_path, run(rounds=1))
    lengths = [body["max_tokens"] for body in stub.bodies]
    assert lengths == [8] * 4 + [1] * 12 + [16] * 24


@pytest.mark.parametrize("completions", [False, True])
def test_how_is_asked(stub: Answering, tmp_path: Path, completions: bool) -> None:
    system = None if completions else "s"
    tasks = [Task(prompt="say 1", answer="1", stop=["\n"], max_tokens=5, system=system)] * 4
    played(stub, tmp_path, run(tasks=tasks, completions=completions, temperature=0.5, seeds=2))
    bodies = [body for body in stub.bodies if body["max_tokens"] == 5]
    assert {body["seed"] for body in bodies} == {7, 8}
    assert all(
        (body["temperature"], body["stop"], body["model"]) == (0.5, ["\n"], "stub")
        for body in bodies
    )
    if completions:
        assert all(body["prompt"] == "say 1" for body in bodies)
    else:
        assert all(
            [each["role"] for each in body["messages"]] == ["system", "user"] for body in bodies
        )


def test_a_fault_ends_it_gives_the_knobs_back_and_the_rest_is_resumed(
    stub: Answering, tmp_path: Path
) -> None:
    # warm-up, prefill, both arms of the first round, and amid the second
    stub.broken_at = 4 + 4 + 8 + 2
    with pytest.raises(AskingError, match=r"task \d+: .*planted: the server is broken"):
        played(stub, tmp_path, run())
    assert stub.settings["policy"] == "oea"
    assert stub.settings["k0"] == "auto"
    first = (tmp_path / "out" / ANSWERS).read_text()
    assert len(first.splitlines()) == 2 * (4 + 1)
    with (tmp_path / "out" / ANSWERS).open("a") as file:
        file.write('{"arm": "vanilla", "task": 3}\n{"arm": "van')  # as a kill leaves it
    stub.broken_at = None
    kept = played(stub, tmp_path, run())
    assert (tmp_path / "out" / ANSWERS).read_text().startswith(first)
    assert Counter(each["arm"] for each in kept.answers) == {"vanilla": 12, "k0=1": 12}
    served = stub.served
    assert played(stub, tmp_path, run()).answers == kept.answers
    assert stub.served == served


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    Kept(tmp_path, IDENTITY)
    Kept(tmp_path, IDENTITY)
    with pytest.raises(KeepingError, match=r"holds another run: margin was 0\.02, and is 0\.03"):
        Kept(tmp_path, {"margin": 0.03})
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(KeepingError, match=r"its plan\.json is no plan"):
        Kept(tmp_path, IDENTITY)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(KeepingError, match="holds something else already"):
        Kept(tmp_path / "else", IDENTITY)


def test_an_answer_that_is_not_whole_is_a_fault(stub: Answering, tmp_path: Path) -> None:
    stub.why = "abort"
    with pytest.raises(AskingError, match="the answer is not whole: finish_reason abort"):
        played(stub, tmp_path, run())


def test_somebody_else_who_turns_knobs_is_noticed(stub: Answering, tmp_path: Path) -> None:
    def says(settings: dict[str, Any], prompt: str) -> str:
        stub.version += 1
        return "1"

    stub.says = says
    with pytest.raises(TargetError, match="somebody else turned its knobs"):
        played(stub, tmp_path, run())


def test_a_controller_that_is_on_is_refused(stub: Answering) -> None:
    stub.controlled = True
    with pytest.raises(TargetError, match="its controller is on"):
        target.examine(stub.remote)


def test_traffic_of_others_is_refused(stub: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "PATIENCE", 0.1)
    metrics = stub.remote.metrics

    def growing() -> dict[str, float]:
        stub.counted["tokens"] += 1
        return metrics()

    monkeypatch.setattr(stub.remote, "metrics", growing)
    with pytest.raises(TargetError, match="others are served there"):
        target.examine(stub.remote)


def test_a_record_tells_nobodys_folders(stub: Answering) -> None:
    stub.served_name = "/home/somebody/model"
    found = target.examine(stub.remote)
    assert (found.name, found.model["served"], found.model["name"]) == (
        "/home/somebody/model",
        "model",
        "stub-model",
    )


def test_a_server_that_is_none_of_ours(stub: Answering) -> None:
    bare = Stub()
    try:
        with pytest.raises(
            TargetError, match="no oea-server answers there, it says 404 to /v1/models"
        ):
            target.examine(bare.remote)
    finally:
        bare.stop()
    with pytest.raises(TargetError, match="no server answers there: ConnectionError"):
        target.examine(bare.remote)


def test_what_the_server_refuses_is_said_before_anything_is_asked(stub: Answering) -> None:
    found = target.examine(stub.remote)
    with pytest.raises(TargetError, match="--candidate=seed=3: the server has no knob seed"):
        target.rehearse(found, candidates.read(["seed=3"]))
    with pytest.raises(
        TargetError,
        match=r"--candidate=k0=20: the server refused .*k0=20 is above the model's top-k 8",
    ):
        target.rehearse(found, candidates.read(["k0=20"]))
    stub.active = False
    with pytest.raises(
        TargetError, match="--candidate=k0=1: the server would not route by it: it was planted"
    ):
        target.rehearse(found, candidates.read(["k0=1"]))
    target.rehearse(found, candidates.read(["policy=vanilla"]))
    assert stub.served == 0
    assert stub.settings["policy"] == "oea"


def test_what_is_kept_is_an_answer_a_line(stub: Answering, tmp_path: Path) -> None:
    played(stub, tmp_path, run(rounds=1))
    lines = [json.loads(line) for line in (tmp_path / "out" / ANSWERS).read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == [*["arm"] * 12, "block"] * 2


def test_a_server_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: object) -> None:
        raise RuntimeError(
            "serve did not start; the end of it:\noea-server: k0=0: too few\nthe last line"
        )

    monkeypatch.setattr("oea_server.client.server.Server.start", start)
    with (
        pytest.raises(TargetError, match=r"^the server did not start .*: k0=0: too few$"),
        target.own_server("m", 4, ()),
    ):
        pass


def test_a_stop_that_python_lost_ends_the_run_before_the_next_block(
    stub: Answering, tmp_path: Path
) -> None:
    def says(settings: dict[str, Any], prompt: str) -> str:
        stopping._asked.set()
        return "1"

    stub.says = says
    try:
        with pytest.raises(KeyboardInterrupt):
            played(stub, tmp_path, run())
    finally:
        stopping._asked.clear()
    assert stub.steered[-1] == {"policy": "oea", "k0": "auto"}
