"""What ranks go by is compared among all of them: at load, and before each change of knobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from torch.distributed import HashStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

from oea_server import provenance
from oea_server.engine import agreement, meeting, plugin
from oea_server.engine.meeting import DisagreementError, World
from oea_server.engine.routers import Router
from oea_server.settings import Settings

ROUTERS = [Router(0, 8, True, None), Router(1, 8, True, None)]
OTHER: dict[str, Any] = {
    "policy": "vanilla",
    "k0": "1:4,8:2",
    "share": "1:0,16:0.13",
    "mix": "0.5",
    "p": 0.5,
    "k_max": 7,
    "max_rank": 9,
    "min_batch": 3,
    "pool": "union",
    "rank_budget": 5,
    "draft_k0": 2,
    "wish_floor": 2,
    "tiers": "gold: exact",
    "default_tier": "gold",
    "seed": 7,
}
"""Another value for every knob that routes."""


def about(
    settings: Settings | None = None, found: list[Router] = ROUTERS, **more: Any
) -> dict[str, Any]:
    return agreement.about(
        settings or Settings(), found, **{"num_experts": 128, "clash": "", **more}
    )


def ranks(
    ask: Callable[[World], Any],
    size: int = 2,
    width: int = 2,
    nodes: int = 2,
    absent: tuple[int, ...] = (),
) -> list[Any]:
    """What each rank of a world comes to, an error's text for one; None for those who never ask."""
    store, start = HashStore(), Barrier(size - len(absent))

    def run(rank: int) -> Any:
        if rank in absent:
            return None
        start.wait()
        try:
            return ask(World(store, rank, size, width, nodes))
        except DisagreementError as error:
            return f"ended: {error}"

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def load(*answers: Mapping[str, Any], **world: Any) -> list[Any]:
    return ranks(
        lambda here: agreement.at_load(here, answers[here.rank]), size=len(answers), **world
    )


def refused(*answers: Mapping[str, Any], **world: Any) -> str:
    """Why all ranks end the launch: all for the same."""
    (line,) = set(load(*answers, **world))
    assert "\n" not in line
    assert line.endswith(f"; {agreement.ALIKE}")  # what to do
    return str(line).removesuffix(f"; {agreement.ALIKE}").replace(f", {about()['host']}", "")


def test_ranks_that_go_by_the_same_hear_all_answers_in_order() -> None:
    answers = [{**about(), "holds": [rank, 8]} for rank in range(4)]
    assert load(*answers, width=2) == [answers] * 4


@pytest.mark.parametrize("name", sorted({*Settings.model_fields} - {*agreement.APART, "schedule"}))
def test_every_knob_that_routes_must_be_the_same(name: str) -> None:
    """A new one is compared until somebody puts it into APART."""
    beside: dict[str, Any] = {"tiers": "gold: exact"} if name == "default_tier" else {}
    one, other = Settings(**beside), Settings(**beside, **{name: OTHER[name]})
    before = "none" if getattr(one, name) is None else getattr(one, name)
    said = (
        f"ended: ranks differ: {name} {before} on rank 0 (node 0), {OTHER[name]} on rank 1 (node 1)"
    )
    assert refused(about(one), about(other)) == said


def test_what_is_only_reported_may_differ(tmp_path: Path) -> None:
    other = Settings(per_layer_metrics=True, latency_line="moe.json", allow_inactive=True)
    assert load(about(), about(other)) == [[about(), about(other)]] * 2


def schedule(path: Path, k0: str, **more: str) -> Settings:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"k0": k0, "k": 8, **more}))
    return Settings(schedule=str(path))


def test_a_schedule_is_what_its_file_holds_and_not_where_it_lies(tmp_path: Path) -> None:
    one = about(schedule(tmp_path / "a" / "schedule.json", "1:8,4:3; 5=4"))
    assert (
        load(one, about(schedule(tmp_path / "b" / "schedule.json", "1:8, 4:3; 5=4")))[0][1] == one
    )
    for k0, said in (
        ("1:8,4:2; 5=4", "schedule 1:8,4:3 on rank 0 (node 0), 1:8,4:2 on rank 1 (node 1)"),
        ("1:8,4:3; 5=3", "schedule of layer 5 4 on rank 0 (node 0), 3 on rank 1 (node 1)"),
        ("1:8,4:3", "schedule of layer 5 4 on rank 0 (node 0), none on rank 1 (node 1)"),
    ):
        other = about(schedule(tmp_path / str(len(k0)) / f"{k0[7:]}.json", k0))
        assert refused(one, other) == f"ended: ranks differ: {said}"
    other = about(schedule(tmp_path / "c" / "schedule.json", "1:8,4:3; 5=4", share="16:0.13"))
    said = "schedule's share 0.0 on rank 0 (node 0), 16:0.13 on rank 1 (node 1)"
    assert refused(one, other) == f"ended: ranks differ: {said}"
    assert "schedule none on rank 0 (node 0), 1:8,4:3 on rank 1" in refused(about(), one)


def test_a_schedule_is_compared_as_it_is_served(tmp_path: Path) -> None:
    """A file that is written anew after it was read."""
    path = tmp_path / "schedule.json"
    settings = schedule(path, "3")
    schedule(path, "5")
    assert agreement.schedule_of(settings)["schedule"] == "3"
    assert str(settings.policy_for(8).k0) == "3"


@pytest.mark.parametrize(
    ("found", "experts", "said"),
    [
        (
            ROUTERS[:1],
            128,
            "layer 1 top-8 renormalized on rank 0 (node 0), none on rank 1 (node 1)",
        ),
        (
            [ROUTERS[0], Router(1, 6, True, None)],
            128,
            "layer 1 top-8 renormalized on rank 0 (node 0), top-6 renormalized",
        ),
        (
            [ROUTERS[0], Router(1, 8, False, None)],
            128,
            "layer 1 top-8 renormalized on rank 0 (node 0), top-8 on",
        ),
        (
            [ROUTERS[0], Router(1, 8, True, "biased")],
            128,
            "top-8 renormalized left alone (biased) on rank 1",
        ),
        (ROUTERS, 64, "experts 128 on rank 0 (node 0), 64 on rank 1 (node 1)"),
        (
            [*ROUTERS, *[Router(-1, 0, False, "odd")] * 2],
            128,
            "layers none on rank 0 (node 0), 2 x top-0 left alone (odd)",
        ),
    ],
)
def test_the_layers_of_a_stage_must_be_the_same(
    found: list[Router], experts: int, said: str
) -> None:
    assert said in refused(about(), about(found=found, num_experts=experts))


def test_layers_are_compared_within_their_stage_and_all_else_everywhere() -> None:
    stages = [about(found=ROUTERS[:1])] * 2 + [about(found=ROUTERS[1:])] * 2
    assert load(*stages, width=2)[3] == stages
    odd = refused(*stages[:3], about(found=[Router(1, 6, True, None)]), width=2)
    assert (
        "layer 1 top-8 renormalized on rank 2 (node 1), top-6 renormalized on rank 3 (node 1)"
        in odd
    )
    other = refused(*stages[:3], about(Settings(k0="5"), found=ROUTERS[1:]), width=2)
    assert other == "ended: ranks differ: k0 auto on rank 0 (node 0), 5 on rank 3 (node 1)"


def test_ranks_without_a_layer_of_ours_are_compared_as_well() -> None:
    vanilla = Settings(policy="vanilla", k0="3")
    assert "k0 3 on rank 0" in refused(
        about(vanilla, []), about(Settings(policy="vanilla", k0="4"), [])
    )


def other_package(monkeypatch: pytest.MonkeyPatch, package: str, number: str) -> dict[str, Any]:
    version = provenance.version
    with monkeypatch.context() as patched:
        patched.setattr(
            provenance, "version", lambda name: number if name == package else version(name)
        )
        agreement.introduction.cache_clear()
        found = about(Settings(k0="5"))
    agreement.introduction.cache_clear()
    return found


def test_another_version_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = (
        provenance.version("oea-server"),
        other_package(monkeypatch, "oea-server", "0.0.9"),
    )
    assert refused(about(), other).endswith(
        f": oea-server {ours} on rank 0 (node 0), 0.0.9 on rank 1 (node 1)"
    )
    unlike = {"version": "7.0", "host": about()["host"], "all": ["new"]}
    assert refused(about(), unlike).endswith(
        f": oea-server {ours} on rank 0 (node 0), 7.0 on rank 1 (node 1)"
    )


def test_what_lies_below_must_be_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "SGLang " in refused(about(), other_package(monkeypatch, "sglang", "0.5.1"))
    here = about()
    monkeypatch.setattr(plugin, "patched", True)
    assert "seams hooks on rank 0 (node 0), patched on rank 1 (node 1)" in refused(here, about())
    monkeypatch.setattr(plugin, "patched", False)
    assert "--x: y on rank 1 (node 1)" in refused(here, about(clash="--x: y"))
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    (tmp_path / "one.py").write_text("x = 1\n")
    one = about()
    (tmp_path / "one.py").write_text("x = 2\n")
    assert "ranks differ: code " in refused(one, about())


def test_many_differences_are_one_line() -> None:
    said = refused(about(), about(Settings(**OTHER)))
    assert said.startswith(
        "ended: ranks differ: policy oea on rank 0 (node 0), vanilla on rank 1 (node 1); k0 auto on"
    )
    assert said.endswith(f"; and {len(OTHER) - agreement.NAMED} more")


def test_of_many_ranks_the_first_that_differs_is_named() -> None:
    said = refused(
        about(), about(Settings(k0="5")), about(Settings(k0="6")), about(Settings(k0="5")), width=4
    )
    assert said == "ended: ranks differ: k0 auto on rank 0 (node 0), 5 on rank 1 (node 0)"


def test_a_rank_that_does_not_answer_is_named_by_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "WAIT", 0.3)
    answers = load(*[about()] * 4, absent=(2,))
    said = (
        "ended: rank 2 (node 1) did not answer in 0 s: is oea-server installed and allowed there"
        " (SGLANG_PLUGINS), "
    )
    assert [str(each)[: len(said)] for each in answers] == [said, said, "None", said]


def test_who_comes_too_late_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have given up, and are gone: what they answered must not be taken for
    agreement."""
    monkeypatch.setattr(meeting, "WAIT", 0.1)
    monkeypatch.setattr(meeting, "FAREWELL", 0.1)
    store = HashStore()
    for rank in (0, 1):
        with pytest.raises(DisagreementError, match=r"rank 1 \(node 1\) did not answer in 0 s"):
            agreement.at_load(World(store, rank, 2, 2, 2), about())


def test_a_rank_that_takes_its_time_is_waited_for() -> None:
    store = HashStore()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(agreement.at_load, World(store, 0, 2, 2, 2), about())
        with pytest.raises(TimeoutError):
            first.result(timeout=0.3)
        agreement.at_load(World(store, 1, 2, 2, 2), about())
        assert first.result(timeout=30) == [about()] * 2


def test_a_store_that_is_gone_is_one_line() -> None:
    """Rank 0 died: its process kept the store."""
    keeper = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ours = PrefixStore("default_pg", TCPStore("127.0.0.1", keeper.port, wait_for_workers=False))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agreement.at_load, World(ours, 1, 2, 2, 2), about())
        keeper.get("default_pg/oea/load/1")
        del keeper
        with pytest.raises(DisagreementError, match="their store is gone: ") as gone:
            waiting.result(timeout=30)
    assert "\n" not in str(gone.value)


TAKEN = {"refusal": "none", "k0": "5"}


def change(
    outcomes: list[dict[str, str]], settings: dict[int, Settings] | None = None, width: int = 2
) -> list[Any]:
    """What each rank makes of a change that comes to `outcomes`."""

    def ask(here: World) -> str | None:
        now = (settings or {}).get(here.rank, Settings())
        return agreement.at_change(here, 1, now, outcomes[here.rank])

    found = ranks(ask, size=len(outcomes), width=width, nodes=1)
    return [str(each).replace(f", {about()['host']}", "") if each else None for each in found]


@pytest.mark.parametrize("outcome", [TAKEN, {"refusal": "no"}])
@pytest.mark.parametrize("width", [4, 2, 1])
def test_a_change_that_comes_to_the_same_everywhere_is_left_to_each(
    outcome: dict[str, str], width: int
) -> None:
    assert change([outcome] * 4, width=width) == [None] * 4


def test_a_change_that_one_rank_refuses_is_refused_by_all() -> None:
    line = (
        "ranks differ: refusal none on rank 0 (node 0), k0=9 is above on rank 1 (node 0); "
        "k0 5 on rank 0 (node 0), none on rank 1 (node 0)"
    )
    assert change([TAKEN, {"refusal": "k0=9 is above"}]) == [line] * 2


def test_a_change_that_comes_to_something_else_on_a_rank_is_refused_by_all() -> None:
    assert (
        change([TAKEN, {**TAKEN, "k0": "6"}])
        == ["ranks differ: k0 5 on rank 0 (node 0), 6 on rank 1 (node 0)"] * 2
    )


def test_ranks_that_went_by_different_knobs_end() -> None:
    line = "ended: ranks differ: k0 auto on rank 0 (node 0), 4 on rank 1 (node 0)"
    assert change([TAKEN] * 2, {1: Settings(k0="4")}) == [line] * 2


def test_a_stage_that_does_not_follow_the_earlier_ones_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have taken the change when this stage is asked."""
    monkeypatch.setattr(meeting, "FAREWELL", 0.1)
    one, two, three, four = change([TAKEN, TAKEN, TAKEN, {"refusal": "no"}], width=2)
    assert (one, two) == (None, None)
    assert three == four
    assert three.startswith(
        "ended: ranks differ: refusal none on rank 0 (node 0), no on rank 3 (node 0)"
    )


@pytest.mark.parametrize("earlier", [[TAKEN, {"refusal": "no"}], [{"refusal": "no"}] * 2])
def test_what_an_earlier_stage_refused_the_later_ones_refuse(earlier: list[dict[str, str]]) -> None:
    found = change([*earlier, TAKEN, TAKEN], width=2)
    assert all(str(each).startswith("ranks differ: refusal ") for each in found[2:])


def test_an_earlier_stage_does_not_wait_for_a_later_one() -> None:
    """SGLang hands a request on when the stage is done with it."""
    store = HashStore()
    for rank in range(3):
        assert agreement.at_change(World(store, rank, 3, 1, 1), 1, Settings(), TAKEN) is None


def test_changes_leave_nothing_behind_for_long() -> None:
    store = HashStore()
    sizes = []
    for turn in range(1, 3 * agreement.KEPT):
        agreement.at_change(World(store, 0, 1, 1, 1), turn, Settings(), TAKEN)
        sizes.append(store.num_keys())
    assert max(sizes) <= agreement.KEPT + 1
