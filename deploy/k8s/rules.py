"""The rules of deploy/prometheus as a PrometheusRule: kustomize cannot put one YAML file into
another."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
FILE = HERE / "components/monitoring/prometheusrule.yaml"
SOURCES = sorted((HERE.parent / "prometheus/rules").glob("*.yml"))
HEAD = """\
# Written by `python -m deploy.k8s` from deploy/prometheus/rules. Change the rules there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: oea-server
  labels:
    app.kubernetes.io/name: oea-server
spec:
  groups:
"""


def text() -> str:
    """The groups of all rule files as they stand, comments too, two columns further in."""
    bodies = (path.read_text().partition("groups:\n")[2] for path in SOURCES)
    return HEAD + "".join(re.sub(r"^(?=.)", "  ", body, flags=re.MULTILINE) for body in bodies)
