"""Every kind of router, through the seam: what SGLang would choose, and what the policy makes of
it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from oea_server.engine import rules, runtime
from oea_server.engine.routers import Router, on_one_rank, problem_of
from oea_server.engine.rules import Source
from oea_server.engine.step import Step
from oea_server.routing import Policy, Routing, eager, host
from oea_server.settings import Settings

ROWS, EXPERTS, LAYER = 4096, 64, 5
CPU = torch.device("cpu")
DICE = torch.Generator().manual_seed(7)
BIAS = torch.randn(EXPERTS, generator=DICE) * 0.3
LOGITS = torch.randn(ROWS, EXPERTS, generator=DICE) * 2


def shared(slots: int) -> dict[str, Any]:
    """The fields of a config whose last columns are shared experts."""
    try:
        from sglang.srt.configs.shared_experts import SharedExpertsConfig
    except ImportError:  # up to 0.5.22
        return {"num_fused_shared_experts": slots}
    return {"shared_experts": SharedExpertsConfig(num_fused_shared_experts=slots)}


ONE_GROUP = {"use_grouped_topk": True, "num_expert_group": 1, "topk_group": 1}
GROUPS = {"use_grouped_topk": True, "num_expert_group": 8, "topk_group": 3}
SCALED = {"routed_scaling_factor": 2.5, "apply_routed_scaling_factor_on_output": True}
KINDS: dict[str, dict[str, Any]] = {
    "Qwen3-MoE": {},
    "Qwen2-MoE": {"renormalize": False},
    "MiniMax-M2": {"scoring_func": "sigmoid", "correction_bias": BIAS},
    "Command-A-Plus": {"scoring_func": "sigmoid"},
    "GLM-4.5": {**ONE_GROUP, "correction_bias": BIAS, "routed_scaling_factor": 2.5},
    "GLM-4.5, scaled": {**ONE_GROUP, "correction_bias": BIAS, **SCALED},
    "GLM-4.5, a shared expert": {
        **ONE_GROUP,
        **shared(1),
        "top_k": 7,
        "correction_bias": BIAS,
        "routed_scaling_factor": 2.5,
    },
    "DeepSeek-V3": {**GROUPS, "correction_bias": BIAS, "routed_scaling_factor": 2.5},
    "DeepSeek-V3, scaled, a shared expert": {
        **GROUPS,
        **shared(1),
        **SCALED,
        "top_k": 7,
        "correction_bias": BIAS,
    },
    "DeepSeek-V3, bfloat16 bias": {**GROUPS, "correction_bias": BIAS.bfloat16()},
    "DeepSeek-V2": {**GROUPS, "renormalize": False, "routed_scaling_factor": 16.0},
    "DeepSeek-V2, one group": {**ONE_GROUP, "renormalize": False},
    "DeepSeek-V4": {"scoring_func": "sqrtsoftplus", "correction_bias": BIAS.bfloat16()},
    "ERNIE-4.5": {"correction_bias": BIAS * 0.02},
}
"""The fields of a `TopKConfig` as models give them."""


def config_of(kind: str) -> Any:
    from sglang.srt.layers.moe.topk import TopKConfig

    return TopKConfig(**{"top_k": 6, "torch_native": True, **KINDS[kind]})


@contextmanager
def adopted(config: Any, settings: Settings) -> Iterator[runtime.Runtime]:
    before = runtime.current
    now = runtime.Runtime(settings)
    source = Source(config, native=True)
    router = Router(
        LAYER, rules.columns(config)[0], config.renormalize, problem_of(config, LAYER), source
    )
    assert now.adopt([router], EXPERTS, CPU) == []
    now.start_counting(EXPERTS, 1, CPU)
    runtime.current = now
    yield now
    runtime.current = before


def select(config: Any, logits: torch.Tensor) -> Any:
    from sglang.srt.layers.moe.topk import select_experts

    return select_experts(torch.zeros(len(logits), 8), logits, config, layer_id=LAYER)


def in_order(weights: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By id: SGLang's own may come in any order."""
    ids, order = ids.long().sort(dim=1)
    return weights.gather(1, order), ids


def whole(config: Any, routing: Routing) -> tuple[torch.Tensor, torch.Tensor]:
    """A routing as the experts see it, shared ones included."""
    return rules.with_shared(
        (routing.weights, routing.ids), config.top_k, EXPERTS, rules.shared_weight(config)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_vanilla_is_sglangs_own(plugged: None, kind: str) -> None:
    config = config_of(kind)
    theirs = in_order(*select(config, LOGITS)[:2])
    for route in (host.route, eager.route):
        ours = in_order(
            *whole(config, route(LOGITS, Policy.vanilla(), Source(config, native=True).rule()))
        )
        assert torch.equal(ours[1], theirs[1])
        torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_chooses_by_the_models_rule(plugged: None, kind: str) -> None:
    config, logits = config_of(kind), LOGITS[:16]
    with adopted(config, Settings(k0="2")) as now:
        with now.decoding(Step(16, counted=True)):
            weights, ids = select(config, logits)[:2]
        rule = now.routers[LAYER].rule
        expected = host.route(logits, Policy.oea(2), rule, layer=LAYER)
        assert now.tally is not None
        assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]
        sums = dict(zip(("tokens", "assignments"), now.tally.sums[0].tolist(), strict=False))
    assert all(
        torch.equal(*pair) for pair in zip(whole(config, expected), (weights, ids), strict=True)
    )
    vanilla = host.route(logits, Policy.vanilla(), rule)
    assert vanilla.pool.sum() > expected.pool.sum()
    assert sums == {"tokens": 16, "assignments": int((expected.weights > 0).sum())}
    # in its own groups
    own = eager.own_keys(logits, eager.scores_of(logits, rule.scoring), rule) >= 0
    assert own.gather(1, ids[:, : rule.k].long()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_token_and_vanilla_take_sglangs_own_path(plugged: None, kind: str) -> None:
    config = config_of(kind)
    with adopted(config, Settings(k0="2")) as now:
        for rows, policy in ((1, "oea"), (16, "vanilla")):
            now.steering.change(Settings(k0="2", policy=policy))  # type: ignore[arg-type]
            with now.decoding(Step(rows, counted=True)):
                inside = select(config, LOGITS[:rows])
            outside = select(config, LOGITS[:rows])
            assert torch.equal(inside.topk_ids, outside.topk_ids)
            assert torch.equal(inside.topk_weights, outside.topk_weights)
            routed = outside.topk_ids[:, : rules.columns(config)[0]]
            assert now.tally is not None
            assert now.tally.unique[0, len(routed.unique())] > 0


def test_a_bias_is_read_as_it_is_when_a_step_runs(plugged: None) -> None:
    """Weights load in place after the router was built; and some models set another tensor."""
    config = config_of("MiniMax-M2")
    config.correction_bias = torch.zeros(EXPERTS)
    with adopted(config, Settings(k0="2")) as now:
        for change in (
            lambda: config.correction_bias.copy_(BIAS),
            lambda: setattr(config, "correction_bias", -BIAS),
        ):
            change()
            with now.decoding(Step(16, counted=True)):
                chosen = select(config, LOGITS[:16])
            rule = rules.router(6, True, "sigmoid", config.correction_bias)
            expected = host.route(LOGITS[:16], Policy.oea(2), rule)
            assert torch.equal(chosen.topk_ids, expected.ids)


def test_softmax_takes_a_bias_only_where_sglang_runs_plain_torch() -> None:
    config = config_of("ERNIE-4.5")
    assert Source(config, native=True).rule().bias is config.correction_bias
    assert Source(config, native=False).rule().bias is None


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Qwen3-MoE", "top-6 renormalized"),
        ("DeepSeek-V2", "top-6 in 3 of 8 groups by max"),
        ("GLM-4.5, scaled", "top-6 renormalized by sigmoid scores and a bias times 2.5"),
        (
            "DeepSeek-V3, scaled, a shared expert",
            (
                "top-6 renormalized by sigmoid scores and a bias in 3 of 8 groups by top2 times 2.5"
                " and 1 shared"
            ),
        ),
        ("ERNIE-4.5", "top-6 renormalized by softmax scores and a bias"),
    ],
)
def test_a_rule_in_words(kind: str, words: str) -> None:
    config = config_of(kind)
    k = rules.columns(config)[0]
    assert str(Router(LAYER, k, config.renormalize, None, Source(config, native=True))) == words


def test_experts_that_compute_nothing_are_counted_nowhere(plugged: None) -> None:
    """As LongCat-Flash has them: the last columns of its router, behind the experts that have
    weights."""
    from sglang.srt.layers.moe.topk import TopKConfig

    zeros, logits = 16, LOGITS[:16]
    config = TopKConfig(top_k=6, torch_native=True, renormalize=False, correction_bias=BIAS * 0.02)
    router = Router(LAYER, 6, False, None, Source(config, native=True, zero_experts=zeros))
    before, now = runtime.current, runtime.Runtime(Settings(k0="2"))
    assert now.adopt([router], EXPERTS, CPU) == []
    now.start_counting(EXPERTS - zeros, 1, CPU)
    assert now.tally is not None
    runtime.current = now
    try:
        with now.decoding(Step(16, counted=True)):
            routed = select(config, logits)
        with now.decoding(Step(1, counted=True)):
            alone = select(config, logits[:1])
    finally:
        runtime.current = before
    expected = host.route(logits, Policy.oea(2), router.rule, layer=LAYER)
    assert torch.equal(routed.topk_ids, expected.ids)
    assert not expected.pool[-zeros:].any()
    assert (routed.topk_ids >= EXPERTS - zeros).any()
    own = select(config, logits[:1]).topk_ids
    assert torch.equal(alone.topk_ids, own)
    counts = {int(expected.pool.sum()), int((own < EXPERTS - zeros).sum())}
    assert set(now.tally.unique[0].nonzero().flatten().tolist()) == counts
    whole_step = host.route(logits, Policy.vanilla(), router.rule)
    assert now.tally.vanilla[0, int(whole_step.pool.sum())] > 0
    several = on_one_rank([router], 2)
    assert "compute nothing, on several ranks" in str(several[0].problem)
    assert on_one_rank([router], 1) == [router]
