"""deploy/ as files: right by promtool, made by its generator, and naming nothing that does not
exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.grafana.dashboard import FILE, text
from oea_server.controller import metrics as controller
from oea_server.observe import tier_metrics
from oea_server.observe.metrics import Metrics
from tests.deploy.names import (
    DASHBOARD,
    DEPLOY,
    PANELS,
    PROMETHEUS,
    RULE_FILES,
    alerts,
    metrics_of,
    panel_expressions,
    rules,
)

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="needs promtool: apt-get install prometheus (make system)",
)
RUNBOOK = (DEPLOY / "runbook.md").read_text()


def run(*words: str | Path) -> None:
    done = subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, check=False, cwd=PROMETHEUS
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_the_configuration_and_the_rules_are_right() -> None:
    run("check", "config", "prometheus.yml")
    run("check", "rules", *RULE_FILES)


@promtool
@pytest.mark.parametrize(
    "path", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem
)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    run("test", "rules", path)


@promtool
def test_the_rules_read_sglangs_other_spelling_as_well(tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS / "rules", tmp_path / "rules")
    (tmp_path / "tests").mkdir()
    for path in (PROMETHEUS / "tests").glob("*.yml"):
        renamed = path.read_text().replace("sglang:", "sglang_")
        assert renamed != path.read_text() or path.stem == "routing"
        (tmp_path / "tests" / path.name).write_text(renamed)
    run("test", "rules", *(tmp_path / "tests").glob("*.yml"))


def test_every_alert_fires_in_a_test_and_stays_silent_in_another() -> None:
    seen: dict[str, set[bool]] = {}
    for path in (PROMETHEUS / "tests").glob("*.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                seen.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert seen == {alert["alert"]: {True, False} for alert in alerts()}


def test_every_alert_has_a_runbook_section() -> None:
    anchors = {
        re.sub(r"[^\w-]", "", title.lower())
        for title in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)
    }
    for alert in alerts():
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert alert["labels"]["severity"] in ("critical", "warning")
        file, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (DEPLOY.parent / file).is_file()
        assert anchor in anchors
    assert len(anchors) == len(alerts())


def known_families() -> set[str]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.add_ranks()
    metrics.add_layers()
    controller.Metrics(registry)
    tier_metrics.Times(registry)
    tier_metrics.Rows(registry)
    return {family.name for family in registry.collect()}


def test_every_metric_of_ours_that_is_read_exists() -> None:
    families = known_families()
    for where, expression in [
        *panel_expressions(),
        *((str(rule), rule["expr"]) for rule in rules()),
    ]:
        assert metrics_of(expression, "oea_") <= families, where
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for alert in alerts():
        assert set(re.findall(r"namespace_pod:[\w:]+", alert["expr"])) <= recorded, alert["alert"]


def test_every_metric_of_ours_is_shown_somewhere() -> None:
    """But for those that a sum of shown ones already is, or that explain in words what an alert and
    a panel show."""
    shown = {
        name for _, expression in panel_expressions() for name in metrics_of(expression, "oea_")
    }
    assert (
        known_families() - shown
        == {"oea_router_limits", "oea_router_mass_kept", "oea_layer_steps"} - shown
    )


def test_sglangs_metrics_are_read_under_both_names() -> None:
    for where, expression in [
        *panel_expressions(),
        *((str(rule), rule["expr"]) for rule in rules()),
    ]:
        colon = set(re.findall(r"(?<![\w:])sglang:(\w+)", expression))
        underscore = set(re.findall(r"(?<![\w:])sglang_(\w+)", expression))
        assert colon == underscore, where


def test_the_dashboard_is_what_its_code_makes() -> None:
    assert FILE.read_text() == text(), "run: python -m deploy.grafana"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        expression = target["expr"]
        selectors = re.findall(r"(?<![\w:])(?:oea_|sglang[:_])\w+(\{[^}]*\})?", expression)
        assert selectors
        assert all(
            'namespace=~"$namespace"' in chosen and 'pod=~"$pod"' in chosen for chosen in selectors
        )
        # a counter is read over a window, never since the start
        counters = re.findall(
            r"(\w*)\(?(?<![\w:])(?:oea_|sglang[:_])\w+_(?:total|sum|count|bucket)\{", expression
        )
        assert set(counters) <= {"rate", "increase"}


def test_the_heatmap_has_colours() -> None:
    """Grafana draws nothing where the colours have 0 steps, which the SDK writes for none given."""
    (colours,) = (panel["options"]["color"] for panel in PANELS if panel["type"] == "heatmap")
    assert colours["steps"] > 1
    assert colours["scheme"]


def test_the_variables_are_chained() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "model", "pod", "window"]
    assert "$namespace" in variables["model"]["query"]
    assert "$model" in variables["pod"]["query"]
