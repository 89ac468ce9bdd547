"""The seams in this SGLang: not patched, applied, patched; and what passes through them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oea_server_demo import MODEL

from oea_server.engine import control, model_card, runtime
from oea_server.engine.routers import Router
from oea_server.engine.seams import SEAMS
from oea_server.engine.step import Step
from oea_server.routing import Policy, host
from oea_server.routing import Router as Rule
from oea_server.routing.eager import route as route_eagerly
from oea_server.routing.knobs import Knobs
from oea_server.settings import Settings
from tests.engine.apart import CLEAN

BIN = Path(sys.executable).parent


route = partial(host.route, router=Rule(4))


def select(logits: torch.Tensor, layer: int = 5, **kwargs: Any) -> Any:
    from sglang.srt.layers.moe.topk import TopKConfig, select_experts

    config = TopKConfig(top_k=4, torch_native=True)
    return select_experts(torch.zeros(len(logits), 8), logits, config, layer_id=layer, **kwargs)


@contextmanager
def padded(now: runtime.Runtime, batch: int, rows: int) -> Iterator[None]:
    """A decode step of `batch` tokens that SGLang has padded to `rows` by the time that its layers
    run."""
    now.rows.forward_batch = SimpleNamespace(input_ids=torch.zeros(rows, dtype=torch.int64))
    try:
        with now.decoding(Step(batch, counted=True)):
            yield
    finally:
        now.rows.forward_batch = None


def test_outside_a_decode_step_sglang_chooses(now: runtime.Runtime) -> None:
    logits = torch.randn(6, 16)
    chosen = select(logits)
    assert torch.equal(chosen.topk_ids, logits.softmax(-1).topk(4).indices)
    assert now.tally is not None
    assert not now.tally.unique.any()


def test_inside_a_decode_step_the_policy_chooses_and_is_counted(now: runtime.Runtime) -> None:
    logits = torch.randn(6, 16)
    with now.decoding(Step(6, counted=True)):
        chosen = select(logits)
    expected = route(logits, now.policy)
    assert torch.equal(chosen.topk_ids, expected.ids)
    assert torch.equal(chosen.topk_weights, expected.weights)
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]
    assert now.clock is not None
    assert [batch for batch, _ in now.clock.read()] == [6]


def test_a_layer_that_was_not_adopted_is_left_alone(now: runtime.Runtime) -> None:
    logits = torch.randn(6, 16)
    with now.decoding(Step(6, counted=True)):
        assert torch.equal(select(logits, layer=6).topk_ids, logits.softmax(-1).topk(4).indices)


def test_warm_up_is_routed_but_not_counted(now: runtime.Runtime) -> None:
    logits = torch.randn(6, 16)
    with now.decoding(Step(6, counted=False)):
        assert torch.equal(select(logits).topk_ids, route(logits, now.policy).ids)
    assert now.tally is not None
    assert not now.tally.unique.any()
    assert now.clock is not None
    assert now.clock.read() == []


def test_a_lone_token_takes_sglangs_own_path(now: runtime.Runtime) -> None:
    logits = torch.randn(1, 16)
    with now.decoding(Step(1, counted=True)):
        chosen = select(logits)
    weights, ids = logits.softmax(-1).topk(4)
    assert torch.equal(chosen.topk_ids, ids)
    assert torch.equal(chosen.topk_weights, weights / (weights.sum(-1, keepdim=True) + 1e-20))


def test_rows_that_pad_a_batch_are_inert(now: runtime.Runtime) -> None:
    logits = torch.randn(8, 16)
    with padded(now, 5, 8):
        chosen = select(logits)
    expected = route(logits[:5], now.policy)
    assert torch.equal(chosen.topk_ids[:5], expected.ids)
    assert expected.pool[chosen.topk_ids.long()].all()
    assert not chosen.topk_weights[5:].any()
    assert now.tally is not None
    assert now.tally.unique[0].nonzero().flatten().tolist() == [int(expected.pool.sum())]


def test_under_ep_pads_are_inert_after_sglangs_own_masking_too(now: runtime.Runtime) -> None:
    """SGLang marks them -1 (0.5.17 does so on GPUs only); unmarked they still wake nobody."""
    logits = torch.randn(8, 16)
    with padded(now, 5, 8):
        chosen = select(logits, num_token_non_padded=torch.tensor(5, dtype=torch.int32))
    expected = route(logits[:5], now.policy)
    assert torch.equal(chosen.topk_ids[:5], expected.ids)
    pads = chosen.topk_ids[5:].long()
    assert (pads == -1).all() or (expected.pool[pads].all() and not chosen.topk_weights[5:].any())


def with_device_knobs(now: runtime.Runtime) -> runtime.Runtime:
    """As on a GPU: what a graph reads lives in tensors."""
    now.knobs = Knobs({5: 4}, 16, torch.device("cpu"))
    now.rows.read_on_device()
    now.steering.change(now.steering.settings)
    return now


def test_what_a_graph_captures_follows_rows_and_knobs_on_the_device(now: runtime.Runtime) -> None:
    """The same calls that capture records, replayed by hand: only tensors change in between."""
    with_device_knobs(now)
    logits = torch.randn(8, 16)
    router = now.routers[5]
    with now.decoding(Step(8, counted=False, capturing=True)):
        captured, knobs, tally = now.num_real(8), now.knobs, now.tally_of_step
        assert isinstance(captured, torch.Tensor)
        assert not now.is_vanilla(router)
    assert knobs is not None
    assert tally is not None
    for settings in (
        Settings(k0="1"),
        Settings(k0="2", p=0.5),
        Settings(policy="vanilla"),
        Settings(policy="random"),
    ):
        assert now.steering.change(settings) is None
        for batch in (1, 3, 8):
            before = tally.unique.clone()
            with now.decoding(Step(batch, counted=True)):
                replayed = route_eagerly(
                    logits, knobs, Rule(4), num_real=captured, layer=5, tally=tally
                )
            expected = route(logits[:batch], settings.policy_for(4), layer=5)
            assert torch.equal(replayed.ids[:batch], expected.ids)
            assert (tally.unique - before)[0].nonzero().flatten().tolist() == [
                int(expected.pool.sum())
            ]
    with now.decoding(Step(8, counted=False)):
        before = tally.unique.clone()
        route_eagerly(logits, knobs, Rule(4), num_real=captured, layer=5, tally=tally)
        assert torch.equal(tally.unique, before)


def test_graphs_captured_vanilla_are_sglangs_own_and_stay_so(now: runtime.Runtime) -> None:
    now.steering.change(Settings(policy="vanilla"))
    with now.decoding(Step(8, counted=False, capturing=True)):
        assert now.is_vanilla(now.routers[5])
    assert now.steering.policies == ("vanilla",)
    assert "captured with SGLang's own kernels, without our routing" in str(
        now.steering.change(Settings())
    )
    assert now.steering.settings.policy == "vanilla"


def test_shadow_serves_vanilla_and_counts_what_oea_would_do(now: runtime.Runtime) -> None:
    logits = torch.randn(8, 16)
    now.steering.change(Settings(policy="shadow", k0="1"))
    with padded(now, 5, 8):
        chosen = select(logits)
    weights, ids = logits.softmax(-1).topk(4)
    assert torch.equal(chosen.topk_ids, ids)
    assert torch.equal(chosen.topk_weights, weights / (weights.sum(-1, keepdim=True) + 1e-20))
    would = route(logits[:5], Policy.oea(1))
    assert now.tally is not None
    assert now.shadow_tally is not None
    assert now.shadow_tally.unique[0].nonzero().flatten().tolist() == [int(would.pool.sum())]
    assert (
        now.shadow_tally.vanilla[0].tolist()
        == now.tally.vanilla[0].tolist()
        == now.tally.unique[0].tolist()
    )
    assert (now.steering.active, now.steering.reason, now.bypassed["policy"]) == (
        False,
        "the policy is shadow",
        1,
    )
    with now.decoding(Step(8, counted=False)):  # warm-up
        select(logits)
    now.steering.change(Settings(k0="1"))
    with now.decoding(Step(8, counted=True)):  # no shadow any more
        assert torch.equal(select(logits).topk_ids, route(logits, Policy.oea(1)).ids)
    assert now.shadow_tally.unique.sum() == 1


def test_graphs_captured_as_shadow_count_what_the_knobs_ask_for(now: runtime.Runtime) -> None:
    """SGLang's own kernels, and beside them our counting, which follows the device."""
    with_device_knobs(now).shadow_knobs = Knobs({5: 4}, 16, torch.device("cpu"))
    now.steering.change(Settings(policy="shadow", k0="1"))
    logits, router = torch.randn(8, 16), now.routers[5]
    with now.decoding(Step(8, counted=False, capturing=True)):
        assert now.is_vanilla(router)
        captured, knobs, tally = now.num_real(8), now.shadow_knobs, now.shadow_tally
    assert knobs is not None
    assert tally is not None
    assert "only vanilla and shadow can run in them" in str(now.steering.change(Settings()))
    for settings, counts in (
        (Settings(policy="shadow", k0="2"), True),
        (Settings(policy="vanilla"), False),
    ):
        assert now.steering.change(settings) is None
        before = tally.unique.clone()
        with now.decoding(Step(3, counted=True)):
            route_eagerly(logits, knobs, Rule(4), num_real=captured, layer=5, tally=tally)
        expected = [int(route(logits[:3], Policy.oea(2)).pool.sum())] if counts else []
        assert (tally.unique - before)[0].nonzero().flatten().tolist() == expected


def test_graphs_captured_with_our_routing_cannot_turn_to_shadow(now: runtime.Runtime) -> None:
    with now.decoding(Step(8, counted=False, capturing=True)):
        assert not now.is_vanilla(now.routers[5])
    assert "shadow" not in now.steering.policies
    assert "only oea and vanilla and pruned and random" in str(
        now.steering.change(Settings(policy="shadow"))
    )
    assert now.steering.change(Settings(policy="vanilla")) is None


def test_steps_that_vanilla_routes_are_told_apart(now: runtime.Runtime) -> None:
    now.steering.change(Settings(k0="1:4,4:2; 5=1:4,8:2"))
    for batch in (1, 4, 8):
        with now.decoding(Step(batch, counted=True)):
            pass
    assert {why: times for why, times in now.bypassed.items() if times} == {"schedule": 2}
    now.steering.change(Settings(policy="vanilla"))
    with now.decoding(Step(8, counted=True)):
        pass
    assert now.bypassed["policy"] == 1


def test_the_page_needs_no_key_and_its_data_does(now: runtime.Runtime) -> None:
    from sglang.srt.utils.auth import AuthLevel, decide_request_auth

    keys = {"authorization_header": None, "api_key": "key", "admin_api_key": "secret"}
    for method, path, allowed in (
        ("GET", "/oea", True),
        ("GET", "/oea/", False),
        ("PUT", "/oea", False),
        ("GET", "/oea/stats", False),
        ("GET", "/oea/config", False),
        ("GET", "/v1/models", False),
    ):
        decision = decide_request_auth(
            method=method, path=path, auth_level=AuthLevel.NORMAL, **keys
        )
        assert decision.allowed == allowed, (method, path)
    assert not decide_request_auth(
        method="PUT",
        path="/oea/config",
        auth_level=AuthLevel.ADMIN_OPTIONAL,
        **{**keys, "authorization_header": "Bearer key"},
    ).allowed


def test_graphs_of_every_size_can_be_steered(now: runtime.Runtime) -> None:
    with now.decoding(Step(1, counted=False, capturing=True)):  # vanilla as the knobs stand
        assert not now.is_vanilla(now.routers[5])


def test_a_change_waits_for_the_next_step(now: runtime.Runtime) -> None:
    logits = torch.randn(6, 16)
    with now.decoding(Step(6, counted=True)):
        assert now.steering.change(Settings(policy="vanilla")) is None
        assert torch.equal(select(logits).topk_ids, route(logits, Policy.oea(1)).ids)
    with now.decoding(Step(6, counted=True)):
        assert torch.equal(select(logits).topk_ids, logits.softmax(-1).topk(4).indices)
    assert not now.steering.active
    assert now.steering.reason == "the policy is vanilla"


def test_a_share_by_batch_size_and_a_mixture_hold_from_the_next_step_on(
    now: runtime.Runtime,
) -> None:
    asked = {"oea_k0": 4, "oea_share=3:0.2,6:0.4": 1, "oea_mix": 0.5}
    assert control.change(now, asked) is None
    for rows, policy in (
        (5, Policy.oea(4, share=0.2, mix=0.5)),
        (6, Policy.oea(4, share=0.4, mix=0.5)),
    ):
        logits = torch.randn(rows, 16)
        expected = route(logits, policy)
        with now.decoding(Step(rows, counted=True)):
            found = select(logits)
        assert torch.equal(found.topk_ids, expected.ids)
        assert torch.equal(found.topk_weights, expected.weights)
    told = control.state_of(now)
    assert [told["share_by_batch"][batch] for batch in ("2", "4", "8")] == [0.0, 0.2, 0.4]
    assert set(told["mix_by_batch"].values()) == {0.5, 1.0}  # a lone token is vanilla
    # all k experts are guaranteed there: that is vanilla, whatever the mixture
    assert now.bypass(2) == "schedule"
    assert now.bypass(3) is None


def test_a_mixture_needs_a_model_that_divides_weights() -> None:
    state = runtime.Runtime(Settings(mix="0.5"))
    (problem,) = state.adopt([Router(0, 4, False, None)], 16, torch.device("cpu"))
    assert problem.startswith(
        "mix=0.5 has no effect: this model does not divide weights by their sum"
    )


@pytest.mark.parametrize(
    ("requested", "problem"),
    [
        ({"oea_k0": 5}, "k0=5 guarantees 5 experts, above the model's top-k 4"),
        ({"oea_k0": 2, "oea_p": 2}, "oea_p=2: input should be less than or equal to 1"),
        ({"oea_k0": 2, "oea_share": 1}, "share=1.0 is outside 0 <= share < 1"),
        ({"oea_share=1:0,16:2": 1}, "share=1:0.0,16:2.0: share 2.0 is outside 0 <= share < 1"),
        ({"oea_mix=half": 1}, "mix='half': 'half' is not BATCH:MIX"),
        ({"oea_k_max": 5}, "k_max=5 is above 4"),
        ({"oea_max_rank": 2.5}, "oea_max_rank=2.5: input should be a valid integer"),
        ({"oea_policy=off": 1}, "oea_policy=off: input should be 'oea', 'vanilla'"),
        ({"oea_k0=1:3,2": 1}, "'2' is not BATCH:K0"),
        ({"oea_kO": 2}, "oea_kO: no such knob; did you mean oea_k0?"),
        ({"oea_allow_inactive": 1}, "oea_allow_inactive: no such knob"),
        ({"oea_k0": 2, "pp_max_micro_batch_size": 4}, "pp_max_micro_batch_size: SGLang's own"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_whole(
    now: runtime.Runtime, requested: dict[str, float], problem: str
) -> None:
    before = now.steering.settings
    said = control.change(now, requested)
    assert problem in str(said)
    assert "\n" not in str(said)
    assert now.steering.settings == before


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({"oea_policy=vanilla": 1}, {"policy": "vanilla"}),
        ({"oea_k0": 2}, {"k0": "2"}),
        ({"oea_k0=1:4,8:2; 5=3": 1, "oea_p": 0.5}, {"k0": "1:4,8:2; 5=3", "p": 0.5}),
        ({"oea_share": 0.1, "oea_mix": 0.5}, {"share": "0.1", "mix": "0.5"}),
        (
            {"oea_share=1:0,16:0.13": 1, "oea_mix=16:0.5": 1},
            {"share": "1:0,16:0.13", "mix": "16:0.5"},
        ),
        ({"oea_max_rank": 9.0, "oea_k_max": 3}, {"max_rank": 9, "k_max": 3}),
        ({"oea_max_rank=none": 1}, {"max_rank": None}),
        (
            {"oea_k0=auto": 1, "oea_min_batch": 4, "oea_seed": 3},
            {"k0": "auto", "min_batch": 4, "seed": 3},
        ),
    ],
)
def test_a_change_keeps_everything_else(
    now: runtime.Runtime, requested: dict[str, float], expected: dict[str, Any]
) -> None:
    before = now.steering.settings.model_dump()
    assert control.change(now, requested) is None
    assert now.steering.settings.model_dump() == {**before, **expected}


def test_knobs_that_do_not_fit_the_model_are_refused_when_it_is_built() -> None:
    state = runtime.Runtime(Settings(k0="5"))
    assert state.adopt([Router(0, 4, True, None)], 16, torch.device("cpu")) == [
        "k0=5 guarantees 5 experts, above the model's top-k 4"
    ]


@pytest.mark.parametrize("allowed", [False, True])
def test_a_model_without_a_router_for_us(allowed: bool) -> None:
    state = runtime.Runtime(Settings(allow_inactive=allowed))
    problems = state.adopt(
        [Router(0, 4, True, "grouped routing is not supported yet")] * 3, 16, torch.device("cpu")
    )
    reason = "3 of 3 MoE layers run vanilla: grouped routing is not supported yet"
    assert problems == ([] if allowed else [f"{reason}; {model_card.ANYWAY}"])
    assert not state.steering.active
    assert state.steering.reason == reason
    assert state.policy == Policy.vanilla()


def test_a_model_with_some_routers_for_us_says_which_are_not() -> None:
    state = runtime.Runtime(Settings())
    assert (
        state.adopt(
            [Router(0, 4, True, None), Router(1, 4, True, "biased")], 16, torch.device("cpu")
        )
        == []
    )
    assert state.steering.active
    assert list(state.routers) == [0]
    assert state.steering.reason == "1 of 2 MoE layers run vanilla: biased"


def test_every_kind_of_router_that_is_not_handled_says_why(plugged: None) -> None:
    from sglang.srt.layers.moe.topk import TopKConfig

    from oea_server.engine.routers import problem_of

    assert problem_of(TopKConfig(top_k=4), 0) is None
    assert (
        problem_of(TopKConfig(top_k=4, scoring_func="sigmoid", correction_bias=torch.zeros(16)), 0)
        is None
    )
    assert problem_of(TopKConfig(top_k=4, use_grouped_topk=True, num_expert_group=4), 0) is None
    for changed, why in (
        ({"scoring_func": "tanh"}, "tanh scores"),
        ({"custom_routing_function": len}, "own routing function"),
    ):
        assert why in str(problem_of(TopKConfig(top_k=4, **changed), 0))  # type: ignore[arg-type]
    assert "BYPASSED format never materialises" in str(
        problem_of(TopKConfig(top_k=4), 0, output="BYPASSED")
    )
    biased = TopKConfig(top_k=4, correction_bias=torch.zeros(16))
    assert "TRITON_KERNEL format never materialises" in str(
        problem_of(biased, 0, output="TRITON_KERNEL")
    )
    assert problem_of(TopKConfig(top_k=4), 0, output="TRITON_KERNEL") is None
    assert "does not know its layer" in str(problem_of(TopKConfig(top_k=4), -1))


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**CLEAN, **environment},
        timeout=300,
        check=False,
    )


@pytest.mark.launch
def test_plain_sglang_with_a_wrong_variable_ends_at_once() -> None:
    done = run(str(BIN / "sglang"), "serve", "--model-path", str(MODEL), OEA_P="3")
    assert done.returncode == 2
    assert (
        "oea-server: refusing to start: OEA_P=3: input should be less than or equal to 1"
        in done.stderr
    )


@pytest.mark.launch
def test_plain_sglang_with_a_clashing_option_ends_before_weights_load() -> None:
    done = run(str(BIN / "sglang"), "serve", "--model-path", str(MODEL), "--enable-torch-compile")
    assert done.returncode == 2
    lines = [
        line
        for line in done.stderr.splitlines()
        if line.startswith("oea-server: refusing to start: ")
    ]
    assert len(lines) == 1
    assert "--enable-torch-compile: compiled decoding" in lines[0]
    assert "Load weight" not in done.stderr


@pytest.mark.launch
def test_the_plug_in_leaves_prometheus_to_sglang() -> None:
    """Imported before SGLang has set its folder, prometheus_client would keep the launcher's
    metrics to itself."""
    script = (
        "import sys\n"
        "from sglang.srt.plugins import load_plugins\n"
        "load_plugins()\n"
        "from oea_server.engine import plugin\n"
        "print(plugin.active, 'prometheus_client' in sys.modules)\n"
    )
    assert run(sys.executable, "-c", script).stdout.strip() == "True False"


@pytest.mark.launch
def test_an_end_is_not_held_up_by_a_last_collection() -> None:
    script = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 100_000))\n"
        "from sglang.srt.plugins import load_plugins\n"
        "load_plugins()\n"
    )
    assert run(sys.executable, "-c", script).stdout.strip() == "True"


@pytest.mark.launch
def test_a_plug_in_that_breaks_is_not_swallowed() -> None:
    script = (
        "from oea_server.engine import plugin\nplugin.SEAMS +="
        " (plugin.Seam('sglang.srt.layers.moe.topk.no_such_thing', 'AROUND',"
        " plugin.SEAMS[2].hook),)\nfrom sglang.srt.plugins import"
        " load_plugins\nload_plugins()\nprint('served on')\n"
    )
    done = run(sys.executable, "-c", script)
    assert done.returncode == 2
    assert (
        "this SGLang has no sglang.srt.layers.moe.topk.no_such_thing "
        "(module 'sglang.srt.layers.moe.topk' has no attribute 'no_such_thing')" in done.stderr
    )
    assert "served on" not in done.stdout


@pytest.mark.launch
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_launch_into_which_sglang_does_not_load_us_is_refused(
    command: str, tmp_path: Path
) -> None:
    """Another installation of our name, say, whose entry point leads elsewhere: SGLang would serve,
    and say nothing."""
    shadow = tmp_path / "oea_server-0.0.dist-info"
    shadow.mkdir()
    (shadow / "METADATA").write_text("Metadata-Version: 2.1\nName: oea-server\nVersion: 0.0\n")
    platform = "oea_cpu = oea_server.cpu.entry:activate"
    entries = {"sglang.srt.plugins": "oea = builtins:dict", "sglang.srt.platforms": platform}
    (shadow / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{entry}\n" for group, entry in entries.items())
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(str(BIN / "oea-server"), command, PYTHONPATH=path)
    assert done.returncode != 0
    assert "SGLang has loaded its plug-ins without oea-server's" in done.stdout + done.stderr
    assert "server_args=" not in done.stderr


@pytest.mark.launch
def test_doctor_says_that_serving_would_be_oea() -> None:
    command = (sys.executable, "-m", "oea_server", "doctor")
    good = run(*command, "--model-path", str(MODEL))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "✓ serving would be OEA" in good.stdout
    assert f"{len(SEAMS)} of {len(SEAMS)} hold" in good.stdout
