"""Every object of every overlay, custom resources too, against strict schemas; and that they are
strict."""

from __future__ import annotations

from collections.abc import Callable

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from jsonschema import ValidationError  # type: ignore[import-untyped]

from tests.deploy.manifests import K8S, OVERLAYS, Object, needs_kubectl, objects, of_kind
from tests.deploy.validation import CUSTOM, VERSIONS, validate

pytestmark = needs_kubectl


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    for found in objects(overlay):
        validate(found, version)


def test_every_schema_is_used() -> None:
    assert {found["kind"].lower() for overlay in OVERLAYS for found in objects(overlay)} >= CUSTOM


def misspelt(found: Object) -> None:
    found["spec"]["replica"] = 1


def misspelt_in_a_container(found: Object) -> None:
    pod = found["spec"].get("template") or found["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    pod["spec"]["containers"][0]["imagePullPolice"] = "Always"


def wrong_restart_policy(found: Object) -> None:
    found["spec"]["leaderWorkerTemplate"]["restartPolicy"] = "RecreateGroup"


def wrong_interval(found: Object) -> None:
    found["spec"]["podMetricsEndpoints"][0]["interval"] = "5 seconds"


def wrong_for(found: Object) -> None:
    next(rule for group in found["spec"]["groups"] for rule in group["rules"] if "for" in rule)[
        "for"
    ] = "2 min"


def number_for_a_string(found: Object) -> None:
    found["spec"]["triggers"][0]["metadata"]["threshold"] = 4


def window_too_long(found: Object) -> None:
    down = found["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    down["stabilizationWindowSeconds"] = 7200


def label_out_of_place(found: Object) -> None:
    found["metadata"]["label"] = {}


BREAKS: list[tuple[str, Callable[[Object], None]]] = [
    ("Deployment", misspelt),
    ("Deployment", misspelt_in_a_container),
    ("LeaderWorkerSet", misspelt),
    ("LeaderWorkerSet", misspelt_in_a_container),
    ("LeaderWorkerSet", wrong_restart_policy),
    ("PodMonitor", misspelt),
    ("PodMonitor", wrong_interval),
    ("PodMonitor", label_out_of_place),
    ("PrometheusRule", misspelt),
    ("PrometheusRule", wrong_for),
    ("ScaledObject", misspelt),
    ("ScaledObject", number_for_a_string),
    ("ScaledObject", window_too_long),
    ("NetworkPolicy", misspelt),
    ("PodDisruptionBudget", misspelt),
    ("Service", misspelt),
]


@pytest.mark.parametrize(
    ("kind", "spoil"), BREAKS, ids=lambda each: getattr(each, "__name__", each)
)
def test_what_is_wrong_is_refused(kind: str, spoil: Callable[[Object], None]) -> None:
    found = of_kind(
        objects("qwen3-235b-multinode" if kind == "LeaderWorkerSet" else "qwen3-30b-router"), kind
    )[0]
    spoil(found)
    with pytest.raises(ValidationError):
        validate(found, VERSIONS[-1])


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(
            {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {}},
            VERSIONS[0],
        )


def test_names_are_unique_within_an_overlay() -> None:
    for overlay in OVERLAYS:
        names = [(found["kind"], found["metadata"]["name"]) for found in objects(overlay)]
        assert len(names) == len(set(names))


def test_every_file_is_part_of_something() -> None:
    """Nothing lies about that no kustomization names."""
    named = set()
    for path in K8S.rglob("kustomization.yaml"):
        loaded = yaml.safe_load(path.read_text())
        listed = [
            *loaded.get("resources", ()),
            *(patch.get("path", "") for patch in loaded.get("patches", ())),
        ]
        named |= {(path.parent / name).resolve() for name in listed if name.endswith(".yaml")} | {
            path
        }
    assert set(K8S.rglob("*.yaml")) == named
