"""Every name in the manifests exists, and a name that does not is noticed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import (
    COMPONENTS,
    K8S,
    OVERLAYS,
    Object,
    needs_kubectl,
    objects,
    of_kind,
    pods,
    rendered,
    servers,
)
from tests.deploy.names import DASHBOARD, metrics_of, rules
from tests.deploy.references import CHECKS, problems
from tests.deploy.test_static import known_families

pytestmark = needs_kubectl


def one(found: list[Object], kind: str, name: str = "oea-server") -> Object:
    (only,) = (each for each in of_kind(found, kind) if each["metadata"]["name"] == name)
    return only


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_exists(overlay: str) -> None:
    assert problems(objects(overlay)) == []


def wrong_service_selector(found: list[Object]) -> None:
    one(found, "Service")["spec"]["selector"]["app.kubernetes.io/component"] = "sever"


def wrong_service_port(found: list[Object]) -> None:
    one(found, "Service")["spec"]["ports"][0]["targetPort"] = "htpp"


def wrong_pod_labels(found: list[Object]) -> None:
    one(found, "Deployment")["spec"]["template"]["metadata"]["labels"][
        "app.kubernetes.io/component"
    ] = "worker"


def no_account(found: list[Object]) -> None:
    found.remove(one(found, "ServiceAccount"))


def wrong_probe_port(found: list[Object]) -> None:
    servers(found)[0].container["livenessProbe"]["httpGet"]["port"] = "metrics"


def no_claim(found: list[Object]) -> None:
    found.remove(one(found, "PersistentVolumeClaim", "model-cache"))


def no_volume(found: list[Object]) -> None:
    one(found, "Deployment")["spec"]["template"]["spec"]["volumes"].pop()


def wrong_token_secret(found: list[Object]) -> None:
    for volume in servers(found)[0].spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = "hf-token"


def wrong_key_secret(found: list[Object]) -> None:
    source = {"secretKeyRef": {"name": "admin-key", "key": "key"}}
    servers(found)[0].container["env"].append({"name": "KEY", "valueFrom": source})


def key_in_a_variable(found: list[Object]) -> None:
    servers(found)[0].container["env"].append({"name": "OEA_ADMIN_KEY", "value": "secret"})


def unknown_knob(found: list[Object]) -> None:
    servers(found)[0].container["env"].append({"name": "OEA_KO", "value": "3"})


def service_links(found: list[Object]) -> None:
    del one(found, "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"]


def no_variable(found: list[Object]) -> None:
    servers(found)[0].container["args"].append("--api-key=$(API_KEY)")


def wrong_budget(found: list[Object]) -> None:
    one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"][
        "app.kubernetes.io/name"
    ] = "oea"


def wrong_monitor_selector(found: list[Object]) -> None:
    one(found, "PodMonitor")["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = (
        "leader"
    )


def wrong_monitor_port(found: list[Object]) -> None:
    one(found, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] = "metrics"


def wrong_policy_subject(found: list[Object]) -> None:
    one(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] = {"app": "oea-server"}


def wrong_policy_peer(found: list[Object]) -> None:
    peers = one(found, "NetworkPolicy")["spec"]["ingress"][0]["from"]
    peers[0]["podSelector"]["matchLabels"] = {"oea-clients": "true"}


def wrong_policy_port(found: list[Object]) -> None:
    one(found, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] = "https"


def wrong_scale_target(found: list[Object]) -> None:
    one(found, "ScaledObject")["spec"]["scaleTargetRef"]["name"] = "oea"


def wrong_scale_namespace(found: list[Object]) -> None:
    one(found, "ScaledObject")["metadata"]["namespace"] = "elsewhere"


def no_monitor(found: list[Object]) -> None:
    for monitor in of_kind(found, "PodMonitor"):
        found.remove(monitor)


def no_role(found: list[Object]) -> None:
    found.remove(one(found, "Role", "oea-router"))


def wrong_subject_namespace(found: list[Object]) -> None:
    one(found, "RoleBinding", "oea-router")["subjects"][0]["namespace"] = "default"


def group_named_as_a_service(found: list[Object]) -> None:
    one(found, "LeaderWorkerSet", "oea-group")["metadata"]["name"] = "oea-server"


def wrong_discovery_label(found: list[Object]) -> None:
    words = one(found, "Deployment", "oea-router")["spec"]["template"]["spec"]["containers"][0][
        "args"
    ]
    words[words.index("app.kubernetes.io/name=oea-server")] = "app.kubernetes.io/name=sglang"


def wrong_discovery_port(found: list[Object]) -> None:
    words = one(found, "Deployment", "oea-router")["spec"]["template"]["spec"]["containers"][0][
        "args"
    ]
    words[words.index("--service-discovery-port=30000")] = "--service-discovery-port=8000"


def router_kept_out(found: list[Object]) -> None:
    del one(found, "Deployment", "oea-router")["spec"]["template"]["metadata"]["labels"][
        "oea-client"
    ]


BREAKS: dict[Callable[[list[Object]], None], str] = {
    wrong_service_selector: "no pod has the labels",
    wrong_service_port: "has no port htpp",
    wrong_pod_labels: "and its pods have",
    no_account: "no ServiceAccount",
    wrong_probe_port: "livenessProbe asks port metrics",
    no_claim: "no claim model-cache",
    no_volume: "mounted and not there",
    wrong_token_secret: "no one makes the Secret hf-token",
    wrong_key_secret: "no one makes the Secret admin-key",
    key_in_a_variable: "OEA_ADMIN_KEY is no knob",
    unknown_knob: "OEA_KO is no knob",
    service_links: "enableServiceLinks",
    no_variable: "$(API_KEY) in args",
    wrong_budget: "PodDisruptionBudget/oea-server: no pod",
    wrong_monitor_selector: "PodMonitor/oea-server: no pod",
    wrong_monitor_port: "has no port metrics",
    wrong_policy_subject: "NetworkPolicy/oea-server: no pod",
    wrong_policy_peer: "which no pod has",
    wrong_policy_port: "opens https",
    wrong_scale_target: "no Deployment oea",
    wrong_scale_namespace: "asks for namespace",
    no_monitor: "nothing scrapes",
    no_role: "no Role oea-router",
    wrong_subject_namespace: "no ServiceAccount oea-router in default",
    group_named_as_a_service: "headless Service",
    wrong_discovery_label: "finds no pod",
    wrong_discovery_port: "has no port 8000",
    router_kept_out: "does not let it in",
}


@pytest.mark.parametrize("spoil", BREAKS, ids=lambda spoil: spoil.__name__)
def test_a_name_that_does_not_exist_is_noticed(spoil: Callable[[list[Object]], None]) -> None:
    found = objects(
        "qwen3-235b-multinode" if spoil is group_named_as_a_service else "qwen3-30b-router"
    )
    spoil(found)
    assert any(BREAKS[spoil] in problem for problem in problems(found)), problems(found)


def test_every_check_is_broken_once() -> None:
    caught = set()
    for spoil in BREAKS:
        found = objects(
            "qwen3-235b-multinode" if spoil is group_named_as_a_service else "qwen3-30b-router"
        )
        spoil(found)
        caught |= {check for check in CHECKS if list(check(found))}
    assert caught == set(CHECKS)


def used_components(folder: Path) -> set[str]:
    """By a kustomization and those below it."""
    loaded = yaml.safe_load((folder / "kustomization.yaml").read_text())
    used = {Path(name).name for name in loaded.get("components", ())}
    for name in loaded.get("resources", ()):
        if (folder / name).is_dir():
            used |= used_components((folder / name).resolve())
    return used


def test_every_component_is_used() -> None:
    assert set().union(
        *(used_components(K8S / "overlays" / overlay) for overlay in OVERLAYS)
    ) == set(COMPONENTS)


def sglang_metrics() -> set[str]:
    """Names in SGLang's source, which is read and not imported."""
    spec = importlib.util.find_spec("sglang")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0]) / "srt/observability/metrics_collector.py"
    return set(re.findall(r'name="(sglang:\w+)"', source.read_text()))


def test_keda_asks_for_metrics_that_the_server_has() -> None:
    (scaled,) = of_kind(objects("qwen3-30b-router"), "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        names = set(re.findall(r"(?:sglang:|oea_)\w+", trigger["metadata"]["query"]))
        assert names
        assert names <= sglang_metrics() | known_families()


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "cpu-demo"])
def test_the_rules_and_the_dashboard_come_along(overlay: str) -> None:
    found = objects(overlay)
    rule = one(found, "PrometheusRule")
    assert [each for group in rule["spec"]["groups"] for each in group["rules"]] == rules()
    config = one(found, "ConfigMap", "oea-server-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["oea-server.json"]) == DASHBOARD


@pytest.mark.parametrize("overlay", [overlay for overlay in OVERLAYS if overlay != "cpu-demo"])
def test_the_monitor_scrapes_what_the_rules_read(overlay: str) -> None:
    found = objects(overlay)
    monitor = one(found, "PodMonitor")
    job = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    wanted = {name for rule in rules() for name in re.findall(r'job=~"([^"]+)"', rule["expr"])}
    assert wanted
    assert all(re.fullmatch(pattern, job) for pattern in wanted)
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (relabel,) = endpoint["metricRelabelings"]
    ours = yaml.safe_load((K8S.parent / "prometheus/prometheus.yml").read_text())["scrape_configs"][
        0
    ]
    (there,) = ours["metric_relabel_configs"]
    assert (relabel["regex"], relabel["replacement"]) == (there["regex"], there["replacement"])
    for other in of_kind(found, "PodMonitor"):
        if other is not monitor:
            assert not any(
                re.fullmatch(pattern, f"oea-server/{other['metadata']['name']}")
                for pattern in wanted
            )
    workers = [
        pod for pod in pods(found) if pod.labels.get("app.kubernetes.io/component") == "worker"
    ]
    assert all(
        not monitor["spec"]["selector"]["matchLabels"].items() <= pod.labels.items()
        for pod in workers
    )


def test_metrics_of_rules_are_ones_we_know() -> None:
    (rule,) = of_kind(objects("qwen3-30b-1gpu"), "PrometheusRule")
    for each in (each for group in rule["spec"]["groups"] for each in group["rules"]):
        assert metrics_of(each["expr"], "oea_") <= known_families()


def test_another_namespace_reaches_every_name(tmp_path: Path) -> None:
    """An operator changes one line; the queries, the binding and the objects follow."""
    shutil.copytree(K8S.parent, tmp_path / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "deploy/k8s/overlays").rglob("kustomization.yaml"):
        path.write_text(path.read_text().replace("namespace: oea-server", "namespace: elsewhere"))
    for overlay in OVERLAYS:
        done = subprocess.run(
            ["kubectl", "kustomize", str(tmp_path / "deploy/k8s/overlays" / overlay)],
            capture_output=True,
            text=True,
            check=True,
        )
        found = list(yaml.safe_load_all(done.stdout))
        assert {each["metadata"]["namespace"] for each in found} == {"elsewhere"}
        assert problems(found) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_renamed_in_one_place(overlay: str) -> None:
    """Every image is one that the overlay's `images:` can rename, pods of custom resources too."""
    for pod in pods(objects(overlay)):
        assert re.fullmatch(r"(oea-server|sglang-router):[\w.-]+", pod.container["image"])
    assert "latest" not in re.findall(r"image: \S+:(\S+)", rendered(overlay))
