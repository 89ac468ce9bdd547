"""The containers' arguments, read by those who will read them: our launcher, SGLang, its router."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest

from deploy.k8s.sizing import LAYOUTS, Layout
from oea_server import command_line, serve
from oea_server.settings import SettingsError
from tests.deploy.manifests import (
    LWS_VARIABLES,
    OVERLAYS,
    ROUTER,
    Object,
    arguments,
    flag,
    needs_kubectl,
    objects,
    of_kind,
    pods,
    quantity,
    servers,
)

pytestmark = needs_kubectl
MODELS = [overlay for overlay in OVERLAYS if overlay != "cpu-demo"]


@pytest.fixture(scope="module")
def sglang() -> argparse.ArgumentParser:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    return parser


def parsed(parser: argparse.ArgumentParser, words: list[str]) -> Any:
    """Raises: argparse.ArgumentError for what SGLang would not take."""
    known, rest = parser.parse_known_args(words)
    if rest:
        raise argparse.ArgumentError(None, f"unknown: {rest}")
    return known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_launcher_and_sglang_take_them(overlay: str, sglang: argparse.ArgumentParser) -> None:
    for pod in servers(objects(overlay)):
        launch = serve.check(arguments(pod.container))
        assert launch.settings.policy == "oea"
        model = [] if command_line.model_of(launch.sglang_argv) else ["--model-path=demo"]
        args = parsed(sglang, [*launch.sglang_argv, *model])
        declared = [
            port["containerPort"]
            for port in pod.container.get("ports", ())
            if port["name"] == "http"
        ]
        assert declared in ([args.port], [])
        assert args.tp_size % args.ep_size == 0


@pytest.mark.parametrize("word", ["--oea-k9=3", "--oea-k0=9,", "--enable-pdmux"])
def test_our_launcher_refuses_what_is_wrong(word: str) -> None:
    pod = servers(objects("qwen3-30b-1gpu"))[0]
    with pytest.raises(SettingsError):
        serve.check([*arguments(pod.container), word])


@pytest.mark.parametrize("word", ["--tensor-paralel=8", "--max-running-requests=many"])
def test_sglang_refuses_what_is_wrong(word: str, sglang: argparse.ArgumentParser) -> None:
    pod = servers(objects("qwen3-30b-1gpu"))[0]
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed(sglang, [*serve.check(arguments(pod.container)).sglang_argv, word])


def test_the_router_takes_its_arguments() -> None:
    from sglang_router.launch_router import parse_router_args  # type: ignore[import-untyped]

    (router,) = (
        pod for pod in pods(objects("qwen3-30b-router")) if pod.container["name"] == ROUTER
    )
    args = parse_router_args(arguments(router.container))
    assert args.policy == "cache_aware"
    assert args.selector == {
        "app.kubernetes.io/name": "oea-server",
        "app.kubernetes.io/component": "server",
    }
    ports = {port["name"]: port["containerPort"] for port in router.container["ports"]}
    assert ports == {"http": args.port, "metrics": args.prometheus_port}
    with pytest.raises(SystemExit):
        parse_router_args([*arguments(router.container), "--policy=cache_aware_v2"])


@pytest.mark.parametrize("overlay", MODELS)
def test_the_models_revision_is_pinned(overlay: str) -> None:
    for pod in servers(objects(overlay)):
        assert re.fullmatch("[0-9a-f]{40}", flag(pod.container, "--revision"))


def layout_of(container: Object) -> Layout:
    """The row of the sizing table that a container is."""
    model = flag(container, "--model-path").partition("/")[2]
    tp, ep = (int(flag(container, name, "1")) for name in ("--tp-size", "--ep-size"))
    (only,) = (
        row for row in LAYOUTS if (row.name.partition(",")[0], row.tp, row.ep) == (model, tp, ep)
    )
    return only


@pytest.mark.parametrize("overlay", MODELS)
def test_the_gpus_are_as_many_and_as_large_as_the_model_needs(overlay: str) -> None:
    found = objects(overlay)
    nodes = LWS_VARIABLES["LWS_GROUP_SIZE"] if of_kind(found, "LeaderWorkerSet") else "1"
    for pod in servers(found):
        layout = layout_of(pod.container)
        limits, requests = (pod.container["resources"][side] for side in ("limits", "requests"))
        assert int(limits["nvidia.com/gpu"]) * int(nodes) == layout.tp
        assert limits == requests
        if layout.name.startswith("Qwen3-235B-A22B-FP8"):
            assert layout.fp8_fits()
        (term,) = pod.spec["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"]
        (memory,) = (
            each for each in term["matchExpressions"] if each["key"] == "nvidia.com/gpu.memory"
        )
        running = int(flag(pod.container, "--max-running-requests"))
        assert memory["operator"] == "Gt"
        assert layout.kv_tokens(int(memory["values"][0])) >= running * 1024, (
            "no room for 1024 tokens a request"
        )


def test_plain_tp8_would_not_load_fp8() -> None:
    fp8 = next(row for row in LAYOUTS if (row.name, row.ep) == ("Qwen3-235B-A22B-FP8", 8))
    assert fp8.fp8_fits()
    assert not fp8._replace(ep=1).fp8_fits()
    assert fp8._replace(tp=4, ep=1).fp8_fits()


@pytest.mark.parametrize("overlay", MODELS)
def test_the_claim_holds_the_model(overlay: str) -> None:
    found = objects(overlay)
    layout = layout_of(servers(found)[0].container)
    whole = layout._replace(tp=1, ep=1).weights()
    for claim in of_kind(found, "PersistentVolumeClaim"):
        assert quantity(claim["spec"]["resources"]["requests"]["storage"]) > 2 * whole


def test_the_group_is_as_large_as_its_size() -> None:
    (group,) = of_kind(objects("qwen3-235b-multinode"), "LeaderWorkerSet")
    assert str(group["spec"]["leaderWorkerTemplate"]["size"]) == LWS_VARIABLES["LWS_GROUP_SIZE"]
    leader, worker = servers([group])
    assert leader.container["args"] == worker.container["args"]


def test_replicas_share_a_claim_that_can_be_shared() -> None:
    (claim,) = of_kind(objects("qwen3-30b-router"), "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
