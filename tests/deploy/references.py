"""Names in manifests that must exist elsewhere in them. Each check takes rendered objects and says
what is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import takewhile

from oea_server.access import keys
from oea_server.settings import OTHER_VARIABLES, Settings
from tests.deploy.manifests import LWS_VARIABLES, Object, Pod, of_kind, pods

OUTSIDE_SECRETS = {"huggingface-token", "oea-admin-key"}
"""Made by the operator; deploy/README.md says how."""
OUTSIDE_PEERS = (
    {"oea-client": "true"},
    {"kubernetes.io/metadata.name": "monitoring"},
    {"app.kubernetes.io/name": "prometheus"},
    {"kubernetes.io/metadata.name": "kube-system"},
    {"k8s-app": "kube-dns"},
)
"""Labels of pods and namespaces that are not ours."""
KEYS_THEMSELVES = {"OEA_KEY", keys.ADMIN, keys.API}
"""Variables that hold a key, which would show in the pod's spec: manifests name a file."""

Problems = Iterator[str]
Check = Callable[[list[Object]], Problems]


def matches(labels: dict[str, str], selector: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def selected(found: list[Object], selector: dict[str, str]) -> list[Pod]:
    return [pod for pod in pods(found) if matches(pod.labels, selector)]


def named_ports(pod: Pod) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in pod.container.get("ports", ())}


def services(found: list[Object]) -> Problems:
    for service in of_kind(found, "Service"):
        name = f"Service/{service['metadata']['name']}"
        behind = selected(found, service["spec"]["selector"])
        if not behind:
            yield f"{name}: no pod has the labels {service['spec']['selector']}"
        for pod in behind:
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in named_ports(pod):
                    yield f"{name}: {pod.name} has no port {port['targetPort']}"


def workloads(found: list[Object]) -> Problems:
    for pod in pods(found):
        selector = pod.owner["spec"].get("selector", {}).get("matchLabels", {})
        if not matches(pod.labels, selector):
            yield f"{pod.name}: selects {selector}, and its pods have {pod.labels}"
        accounts = {each["metadata"]["name"] for each in of_kind(found, "ServiceAccount")}
        if pod.spec["serviceAccountName"] not in accounts:
            yield f"{pod.name}: no ServiceAccount {pod.spec['serviceAccountName']}"


def ports_of_probes(found: list[Object]) -> Problems:
    for pod in pods(found):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = pod.container.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in named_ports(pod):
                yield f"{pod.name}: {probe} asks port {port}, which the container does not name"


def volumes(found: list[Object]) -> Problems:
    claims = {each["metadata"]["name"] for each in of_kind(found, "PersistentVolumeClaim")}
    maps = {each["metadata"]["name"] for each in of_kind(found, "ConfigMap")}
    for pod in pods(found):
        there = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        mounted = {mount["name"] for mount in pod.container.get("volumeMounts", ())}
        for name in mounted ^ set(there):
            yield f"{pod.name}: volume {name} is mounted and not there, or there and not mounted"
        for volume in there.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in claims:
                yield f"{pod.name}: no claim {claim}"
            secret = volume.get("secret", {}).get("secretName")
            if secret is not None and secret not in OUTSIDE_SECRETS:
                yield f"{pod.name}: no one makes the Secret {secret}"
            config = volume.get("configMap", {}).get("name")
            if config is not None and config not in maps:
                yield f"{pod.name}: no ConfigMap {config}"


def variables(found: list[Object]) -> Problems:
    knobs = {f"OEA_{name.upper()}" for name in Settings.model_fields} | set(
        OTHER_VARIABLES
    ) - KEYS_THEMSELVES
    for pod in pods(found):
        names = set()
        for variable in pod.container.get("env", ()):
            names.add(variable["name"])
            secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
            if secret is not None and secret not in OUTSIDE_SECRETS:
                yield f"{pod.name}: no one makes the Secret {secret}"
        for name in names:
            if name.startswith("OEA_") and name not in knobs:
                yield f"{pod.name}: {name} is no knob of the server, nor a file with a key"
        if pod.spec.get("enableServiceLinks", True):
            yield (
                f"{pod.name}: enableServiceLinks would inject OEA_SERVER_* variables among the"
                " knobs"
            )
        if pod.owner["kind"] == "LeaderWorkerSet":
            names |= set(LWS_VARIABLES)
        for used in re.findall(r"\$\((\w+)\)", " ".join(pod.container["args"])):
            if used not in names:
                yield f"{pod.name}: $({used}) in args stays as it is: no such variable"


def budgets(found: list[Object]) -> Problems:
    guarded = []
    for budget in of_kind(found, "PodDisruptionBudget"):
        under = selected(found, budget["spec"]["selector"]["matchLabels"])
        guarded += [pod.name for pod in under]
        if not under:
            yield f"PodDisruptionBudget/{budget['metadata']['name']}: no pod has its labels"
    for pod in pods(found):
        if pod.name not in guarded:
            yield f"{pod.name}: no PodDisruptionBudget"


def monitors(found: list[Object]) -> Problems:
    for monitor in of_kind(found, "PodMonitor"):
        name = f"PodMonitor/{monitor['metadata']['name']}"
        watched = selected(found, monitor["spec"]["selector"]["matchLabels"])
        if not watched:
            yield f"{name}: no pod has its labels"
        for pod in watched:
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in named_ports(pod):
                    yield f"{name}: {pod.name} has no port {endpoint['port']}"


def policies(found: list[Object]) -> Problems:
    for policy in of_kind(found, "NetworkPolicy"):
        name, spec = f"NetworkPolicy/{policy['metadata']['name']}", policy["spec"]
        subjects = selected(found, spec["podSelector"]["matchLabels"])
        if not subjects:
            yield f"{name}: no pod has its labels"
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(direction, ()):
                others = [peer for peer in rule.get(peers, ()) if "ipBlock" not in peer]
                for labels in (side["matchLabels"] for peer in others for side in peer.values()):
                    if labels not in OUTSIDE_PEERS and not selected(found, labels):
                        yield f"{name}: {direction} names {labels}, which no pod has"
                for port in rule.get("ports", ()):
                    targets = subjects if direction == "ingress" else []
                    if isinstance(port["port"], str) and not any(
                        port["port"] in named_ports(pod) for pod in targets
                    ):
                        yield f"{name}: {direction} opens {port['port']}, a port of no such pod"


def scaling(found: list[Object]) -> Problems:
    names = {(each["kind"], each["apiVersion"], each["metadata"]["name"]) for each in found}
    for scaled in of_kind(found, "ScaledObject"):
        target = scaled["spec"]["scaleTargetRef"]
        if (target["kind"], target["apiVersion"], target["name"]) not in names:
            yield f"ScaledObject/{scaled['metadata']['name']}: no {target['kind']} {target['name']}"
        for trigger in scaled["spec"]["triggers"]:
            asked = re.findall(r'namespace="([^"]*)"', trigger["metadata"]["query"])
            if asked != [scaled["metadata"]["namespace"]]:
                yield f"ScaledObject/{scaled['metadata']['name']}: asks for namespace {asked}"
            if not of_kind(found, "PodMonitor"):
                yield f"ScaledObject/{scaled['metadata']['name']}: nothing scrapes what it asks for"


def roles(found: list[Object]) -> Problems:
    there = {
        (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace"))
        for each in found
    }
    for binding in of_kind(found, "RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        names = [(binding["roleRef"]["kind"], binding["roleRef"]["name"], namespace)]
        names += [
            (subject["kind"], subject["name"], subject["namespace"])
            for subject in binding["subjects"]
        ]
        for kind, name, place in names:
            if (kind, name, place) not in there:
                yield f"RoleBinding/{binding['metadata']['name']}: no {kind} {name} in {place}"


def groups(found: list[Object]) -> Problems:
    for group in of_kind(found, "LeaderWorkerSet"):
        if group["metadata"]["name"] in {
            each["metadata"]["name"] for each in of_kind(found, "Service")
        }:
            yield (
                f"LeaderWorkerSet/{group['metadata']['name']}: the operator's headless Service has"
                " this name"
            )


def discovery(found: list[Object]) -> Problems:
    """The router finds servers by labels and a port in its arguments, and passes their policy by
    its own labels."""
    for pod in pods(found):
        words = pod.container["args"]
        if "--selector" not in words:
            continue
        after = words[words.index("--selector") + 1 :]
        labels = list(takewhile(lambda word: not word.startswith("--"), after))
        workers = selected(found, dict(label.split("=") for label in labels))
        if not workers:
            yield f"{pod.name}: --selector {labels} finds no pod"
        port = int(
            next(word for word in words if word.startswith("--service-discovery-port=")).partition(
                "="
            )[2]
        )
        for worker in workers:
            if port not in named_ports(worker).values():
                yield f"{pod.name}: {worker.name} has no port {port}"
        if not matches(pod.labels, {"oea-client": "true"}):
            yield f"{pod.name}: the servers' NetworkPolicy does not let it in"


CHECKS: tuple[Check, ...] = (
    *(services, workloads, ports_of_probes, volumes, variables, budgets),
    *(monitors, policies, scaling, roles, groups, discovery),
)


def problems(found: list[Object]) -> list[str]:
    """Of all checks."""
    return [problem for check in CHECKS for problem in check(found)]
