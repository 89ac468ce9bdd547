"""Strict schema checks: core kinds by kubernetes-validate, custom resources by
tests/deploy/schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.deploy.manifests import Object

SCHEMAS: dict[str, Any] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in Path(__file__).with_name("schemas").glob("*.yaml")
}
CUSTOM = {name for name in SCHEMAS if name != "metadata"}
VERSIONS = ("1.28", "1.32", "1.37")
"""Of Kubernetes: the oldest that the manifests are for, a middle one, the newest that the validator
knows."""


def validate(found: Object, version: str) -> None:
    """Raises:
    jsonschema.ValidationError: a field that does not exist, or a value that it cannot have.
    kubernetes_validate.SchemaNotFoundError: a kind that neither side knows.
    """
    kind = found["kind"].lower()
    if kind not in CUSTOM:
        kubernetes_validate.validate(found, version, strict=True)
        return
    registry: Registry[Any] = Registry().with_resource(
        "metadata", Resource.from_contents(SCHEMAS["metadata"], default_specification=DRAFT202012)
    )
    Draft202012Validator(SCHEMAS[kind], registry=registry).validate(found)
    if kind == "leaderworkerset":
        group = found["spec"]["leaderWorkerTemplate"]
        for name in ("leaderTemplate", "workerTemplate"):
            template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group[name]}
            kubernetes_validate.validate(template, version, strict=True)
