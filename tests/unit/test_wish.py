"""A request's wish as it comes from a client: kept, or one line that names the field, what is there
and what may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from oea_server.engine import runtime, wish, wish_door
from oea_server.routing.policy import EXACT
from oea_server.settings import Settings

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 128,
    "num_experts_per_tok": 8,
}
MANAGER = SimpleNamespace(
    model_config=SimpleNamespace(hf_config=SimpleNamespace(to_dict=lambda: CONFIG)),
)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have this process serve by some settings, of which the schedulers have said nothing yet."""

    def serve(**knobs: Any) -> None:
        monkeypatch.setattr(runtime, "current", runtime.Runtime(Settings(**knobs)))

    monkeypatch.setattr(wish_door, "known", None)
    serve()
    return serve


def ask(given: Any, manager: Any = MANAGER) -> None:
    wish_door.before_generate_request(
        manager, SimpleNamespace(sampling_params={"custom_params": {"oea": given}})
    )


def said(top_k: int, least: int) -> dict[str, Any]:
    """What the schedulers say."""
    return {"model": {"top_k": top_k}, "least_k0": least, "settings": Settings().live()}


NO_OBJECT = 'is no object, as {"exact": true} or {"k0": 6}'
MALFORMED: tuple[tuple[Any, str], ...] = (
    (None, f"custom_params.oea: None {NO_OBJECT}"),
    (True, f"custom_params.oea: True {NO_OBJECT}"),
    (6, f"custom_params.oea: 6 {NO_OBJECT}"),
    ("exact", f"custom_params.oea: 'exact' {NO_OBJECT}"),
    ("k0=6\nX: y", f"custom_params.oea: 'k0=6\\nX: y' {NO_OBJECT}"),
    ([], f"custom_params.oea: [] {NO_OBJECT}"),
    ([{"exact": True}], f"custom_params.oea: [{{'exact': True}}] {NO_OBJECT}"),
    ({}, "custom_params.oea: is empty; give one of exact and k0"),
    (
        {"exact": True, "k0": 6},
        "custom_params.oea: exact and k0 are two wishes; give one of exact and k0",
    ),
    (
        {"exact": False, "k0": 6},
        "custom_params.oea: exact and k0 are two wishes; give one of exact and k0",
    ),
    ({"exact": 1}, "custom_params.oea.exact: 1 is neither true nor false"),
    ({"exact": 0}, "custom_params.oea.exact: 0 is neither true nor false"),
    ({"exact": "true"}, "custom_params.oea.exact: 'true' is neither true nor false"),
    ({"exact": None}, "custom_params.oea.exact: None is neither true nor false"),
    (
        {"exact": {"really": True}},
        "custom_params.oea.exact: {'really': True} is neither true nor false",
    ),
    ({"exact": [True]}, "custom_params.oea.exact: [True] is neither true nor false"),
    ({"k0": True}, "custom_params.oea.k0: True is no whole number"),
    ({"k0": "6"}, "custom_params.oea.k0: '6' is no whole number"),
    ({"k0": 6.0}, "custom_params.oea.k0: 6.0 is no whole number"),
    ({"k0": float("nan")}, "custom_params.oea.k0: nan is no whole number"),
    ({"k0": None}, "custom_params.oea.k0: None is no whole number"),
    ({"k0": [6]}, "custom_params.oea.k0: [6] is no whole number"),
    ({"k0": {"1": 8}}, "custom_params.oea.k0: {'1': 8} is no whole number"),
    ({"k0": "1:8,16:3"}, "custom_params.oea.k0: '1:8,16:3' is no whole number"),
    ({"k0": 0}, "custom_params.oea.k0: 0 is outside 1..32767"),
    ({"k0": -6}, "custom_params.oea.k0: -6 is outside 1..32767"),
    ({"k0": 2**31}, "custom_params.oea.k0: 2147483648 is outside 1..32767"),
    ({"k0": 10**80}, f"custom_params.oea.k0: 1{'0' * 59} is outside 1..32767"),
    ({"k0": 9}, "custom_params.oea.k0: 9 is above 8, the model's top k"),
    ({"k0": 2}, "custom_params.oea.k0: 2 is below 3, which this server guarantees each token"),
    ({"K0": 6}, "custom_params.oea: 'K0' is no wish; there are exact and k0"),
    ({"k0": 6, "share": 0.1}, "custom_params.oea: 'share' is no wish; there are exact and k0"),
    ({"policy": "vanilla"}, "custom_params.oea: 'policy' is no wish; there are exact and k0"),
    ({"\u2028": 1}, "custom_params.oea: '\\u2028' is no wish; there are exact and k0"),
    ({"x" * 500: 1}, f"custom_params.oea: '{'x' * 60}' is no wish; there are exact and k0"),
    ({"tier": "gold"}, "custom_params.oea.tier: this server has no tiers; there are exact and k0"),
    (
        {"tier": "gold", "k0": 6},
        "custom_params.oea.tier: this server has no tiers; there are exact and k0",
    ),
)


@pytest.mark.parametrize(("given", "line"), MALFORMED, ids=range(len(MALFORMED)))
def test_nonsense_is_one_line(serving: Any, given: Any, line: str) -> None:
    with pytest.raises(ValueError, match=r"^custom_params\.oea") as refused:
        ask(given)
    assert str(refused.value) == line
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("given", [{"exact": True}, {"exact": False}, {"k0": 3}, {"k0": 8}])
def test_what_can_be_kept_passes(serving: Any, given: Any) -> None:
    ask(given)


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"temperature": 0},
        {"custom_params": None},
        {"custom_params": {}},
        {"custom_params": {"thinking_budget": 5}},
        {"custom_params": [1]},
    ],
)
def test_what_is_not_ours_is_left_alone(serving: Any, params: Any) -> None:
    wish_door.before_generate_request(MANAGER, SimpleNamespace(sampling_params=params))


def test_a_servers_own_default_is_looked_at_where_a_request_says_nothing(serving: Any) -> None:
    manager = SimpleNamespace(
        **vars(MANAGER), preferred_sampling_params={"custom_params": {"oea": {"k0": "6"}}}
    )
    with pytest.raises(ValueError, match="k0: '6' is no whole number"):
        wish_door.before_generate_request(
            manager, SimpleNamespace(sampling_params={"temperature": 0})
        )
    ask({"exact": True}, manager)


def test_one_of_a_batch_refuses_all_of_it(serving: Any) -> None:
    batch = [{"temperature": 0}, {"custom_params": {"oea": {"k0": 99}}}]
    with pytest.raises(ValueError, match="99 is above 8"):
        wish_door.before_generate_request(MANAGER, SimpleNamespace(sampling_params=batch))


@pytest.mark.parametrize(
    ("knobs", "least"),
    [
        ({"k0": "5"}, 5),
        ({"k0": "1:8,4:6,16:4; 0-2=8"}, 4),
        ({"k0": "1:8; 7=2"}, 2),
        ({"k0": "8", "share": "0.2"}, 1),
        ({"k0": "6", "p": 0.9}, 1),
        ({"policy": "pruned", "k0": "6"}, 6),
        ({"policy": "vanilla", "k0": "6"}, 1),  # a token gets more than any wish
        ({"policy": "shadow", "k0": "6"}, 1),
        ({"policy": "random", "k0": "6"}, 1),
    ],
)
def test_the_floor_is_what_every_token_is_guaranteed(
    serving: Any, knobs: dict[str, Any], least: int
) -> None:
    serving(**knobs)
    ask({"k0": least})
    if least > 1:
        with pytest.raises(
            ValueError,
            match=f"{least - 1} is below {least}, which this server guarantees each token",
        ):
            ask({"k0": least - 1})


def test_after_a_live_change_the_floor_is_the_schedulers(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wish_door, "known", lambda: said(6, 5))
    ask({"k0": 5})
    for k0, why in ((4, "4 is below 5, which"), (7, "7 is above 6")):
        with pytest.raises(ValueError, match=why):
            ask({"k0": k0})


def test_an_operator_may_allow_less(serving: Any) -> None:
    serving(k0="5", wish_floor=2)
    ask({"k0": 2})
    with pytest.raises(ValueError, match="k0: 1 is below 2, the least that this server takes"):
        ask({"k0": 1})


def test_of_a_model_whose_top_k_nobody_knows_any_wish_passes(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wish_door, "known", lambda: said(0, 1))
    ask({"k0": 30})


def test_what_a_wish_is_as_a_number() -> None:
    given: tuple[Any, ...] = (
        {"oea": {"exact": True}},
        {"oea": {"exact": False}},
        {"oea": {"k0": 6}},
        {},
        None,
        5,
    )
    assert [wish.of(each) for each in given] == [EXACT, 0, 6, 0, 0, 0]
