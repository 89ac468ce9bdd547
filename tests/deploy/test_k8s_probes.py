"""Probes, budgets and limits: against the latencies that were measured, SGLang's own limits, and
each other."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import (
    OVERLAYS,
    Object,
    needs_kubectl,
    objects,
    of_kind,
    pods,
    quantity,
    servers,
)
from tests.deploy.names import DEPLOY

pytestmark = needs_kubectl
HEALTH: dict[str, Any] = json.loads((DEPLOY / "health.json").read_text())
MARGIN = 2.0
"""Over the slowest answer that was measured: other machines, other neighbours."""
IMAGE_PULL = 600
"""Seconds: tens of GB at 50 MB/s."""
ANSWER_TOKENS, TOKENS_PER_SECOND = 32768, 40
"""The longest answer that Qwen3's cards advise, at a pace that a busy server keeps."""


def source(path: str) -> str:
    """SGLang's, read and not imported."""
    spec = importlib.util.find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / path).read_text()


def limit(path: str, pattern: str) -> float:
    """The one number in SGLang's source that a pattern finds."""
    (found,) = set(re.findall(pattern, source(path)))
    return float(found)


HEALTH_TIMEOUT = limit("srt/entrypoints/http_server.py", r'"SGLANG_HEALTH_CHECK_TIMEOUT", (\d+)')
WATCHDOG = limit(
    "srt/arg_groups/fields/device.py", r"\bwatchdog_timeout: A\[[^]]*?\] = (\d+)\n    soft"
)
DRAIN_POLL = limit(
    "srt/managers/tokenizer_manager.py", r"if remain_num_req > 0:\n\s+await asyncio\.sleep\((\d+)\)"
)
SCHEDULER_EXIT = limit("srt/managers/tokenizer_manager.py", r"_SCHEDULER_EXIT_TIMEOUT_SECS = (\d+)")


def slowest() -> float:
    """The slowest healthy answer to /health, whatever the load."""
    return max(float(paths["/health"]["max_s"]) for paths in HEALTH["latency"].values())


def probed(overlay: str) -> list[Object]:
    """Containers with probes: not the workers of a group, whose /health says nothing."""
    found = [pod.container for pod in servers(objects(overlay)) if "startupProbe" in pod.container]
    assert found
    return found


def budget(probe: Object) -> int:
    """Seconds without an answer that lead to the consequence."""
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


def test_the_measurement_is_one() -> None:
    assert HEALTH["times"] >= 20
    assert len(HEALTH["latency"]) == 2
    for paths in HEALTH["latency"].values():
        for seconds in paths.values():
            assert 1 <= seconds["median_s"] <= seconds["p99_s"] <= seconds["max_s"], (
                "/health sleeps for a second"
            )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_probe_waits_for_a_healthy_answer(overlay: str) -> None:
    for container in probed(overlay):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[name]["httpGet"]["path"] == "/health"
            assert container[name]["timeoutSeconds"] >= MARGIN * slowest()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_liveness_outlasts_sglangs_own_limits(overlay: str) -> None:
    for container in probed(overlay):
        probe = container["livenessProbe"]
        assert probe["timeoutSeconds"] > HEALTH_TIMEOUT
        assert probe["periodSeconds"] >= probe["timeoutSeconds"]
        assert budget(probe) > WATCHDOG, (
            "SGLang should end a hung step itself, and say where it hung"
        )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_readiness_gives_up_before_liveness(overlay: str) -> None:
    for container in probed(overlay):
        assert budget(container["readinessProbe"]) < budget(container["livenessProbe"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_start_has_time(overlay: str) -> None:
    for container in probed(overlay):
        seconds = budget(container["startupProbe"])
        if overlay == "cpu-demo":
            assert HEALTH["model"] == "demo"
            assert seconds >= 3 * HEALTH["start_s"]
        else:
            assert seconds >= (90 if "235b" in overlay else 60) * 60


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_rollout_waits_for_the_start_and_never_surges(overlay: str) -> None:
    found = objects(overlay)
    for pod in servers(found):
        if pod.owner["kind"] == "Deployment":
            spec = pod.owner["spec"]
            assert (
                spec["progressDeadlineSeconds"]
                >= budget(pod.container["startupProbe"]) + IMAGE_PULL
            )
            assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        else:
            rollout = pod.owner["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
            assert rollout == {"maxSurge": 0, "maxUnavailable": 1}
            assert (
                pod.owner["spec"]["leaderWorkerTemplate"]["restartPolicy"]
                == "RecreateGroupOnPodRestart"
            )


def pre_stop(container: Object) -> int:
    word, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    return int(seconds)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_grace_period_holds_an_answer(overlay: str) -> None:
    answer = 30 if overlay == "cpu-demo" else ANSWER_TOKENS / TOKENS_PER_SECOND
    found = servers(objects(overlay))
    for pod in found:
        if "lifecycle" not in pod.container:  # a worker ends when the leader tells it to
            assert (
                pod.spec["terminationGracePeriodSeconds"]
                == found[0].spec["terminationGracePeriodSeconds"]
            )
            continue
        assert 10 <= pre_stop(pod.container) <= 30
        needed = pre_stop(pod.container) + answer + DRAIN_POLL + SCHEDULER_EXIT
        assert pod.spec["terminationGracePeriodSeconds"] >= needed


def test_the_router_outlives_its_servers_answers() -> None:
    found = objects("qwen3-30b-router")
    (router,) = (pod for pod in pods(found) if pod.container["name"] == "router")
    server = servers(found)[0]
    words = dict(
        word.split("=", 1)
        for word in router.container["args"]
        if word.startswith("--") and "=" in word
    )
    grace = router.spec["terminationGracePeriodSeconds"]
    assert pre_stop(router.container) + int(words["--shutdown-grace-period-secs"]) <= grace
    assert int(words["--shutdown-grace-period-secs"]) >= ANSWER_TOKENS / TOKENS_PER_SECOND
    assert int(words["--health-check-timeout-secs"]) > HEALTH_TIMEOUT
    assert int(words["--worker-startup-timeout-secs"]) >= budget(server.container["startupProbe"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_shared_memory_fits_the_memory_limit(overlay: str) -> None:
    for pod in servers(objects(overlay)):
        (shm,) = (
            volume
            for volume in pod.spec["volumes"]
            if volume.get("emptyDir", {}).get("medium") == "Memory"
        )
        assert {"name": shm["name"], "mountPath": "/dev/shm"} in pod.container["volumeMounts"]
        assert 4 * quantity(shm["emptyDir"]["sizeLimit"]) <= quantity(
            pod.container["resources"]["limits"]["memory"]
        )


def test_the_demo_starts_no_more_threads_than_it_has_cores() -> None:
    (pod,) = servers(objects("cpu-demo"))
    (threads,) = (
        each["value"] for each in pod.container["env"] if each["name"] == "OMP_NUM_THREADS"
    )
    assert threads == pod.container["resources"]["limits"]["cpu"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_budgets_let_a_lone_replica_be_drained(overlay: str) -> None:
    for each in of_kind(objects(overlay), "PodDisruptionBudget"):
        assert each["spec"]["maxUnavailable"] == 1


def test_scaling_is_slow_where_loading_is() -> None:
    (scaled,) = of_kind(objects("qwen3-30b-router"), "ScaledObject")
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 1800
    assert all(policy["value"] == 1 for side in behavior.values() for policy in side["policies"])
    assert scaled["spec"]["minReplicaCount"] >= 1
    deployments = {
        each["metadata"]["name"]: each
        for each in of_kind(objects("qwen3-30b-router"), "Deployment")
    }
    assert "replicas" not in deployments["oea-server"]["spec"], (
        "KEDA's number, which an apply must not set back"
    )
