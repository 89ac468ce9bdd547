"""Names in PromQL, and what deploy/ says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/oea-server.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SUFFIX = re.compile(r"_(bucket|sum|count|total)$")


def rules() -> list[dict[str, Any]]:
    """All rules, recording and alerting, in the order of their files."""
    files = (yaml.safe_load(path.read_text()) for path in RULE_FILES)
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panel_expressions() -> list[tuple[str, str]]:
    """(title, expression) of every query of every panel."""
    return [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


def metrics_of(expression: str, prefix: str) -> set[str]:
    """Metric families (without _bucket, _total, ...) with a prefix that an expression reads."""
    return {SUFFIX.sub("", name) for name in re.findall(rf"(?<![\w:]){prefix}\w+", expression)}
