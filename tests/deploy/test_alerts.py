"""What alerts take for granted about the manifests: how long a start takes, and what pods are
called."""

from __future__ import annotations

import re

import pytest

from tests.deploy.manifests import OVERLAYS, needs_kubectl, objects, servers
from tests.deploy.names import alerts

pytestmark = needs_kubectl
RULES = {alert["alert"]: alert["expr"] for alert in alerts()}


def only(pattern: str, text: str) -> str:
    """What a pattern's group finds, in all places the same."""
    (found,) = set(re.findall(pattern, text))
    return str(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_start_is_no_outage_while_its_probe_waits(overlay: str) -> None:
    silent = 60 * int(only(r"(?:\[|offset )(\d+)m", RULES["OEATargetDown"]))
    probes = [
        pod.container["startupProbe"]
        for pod in servers(objects(overlay))
        if "startupProbe" in pod.container
    ]
    assert probes
    assert all(
        int(each["periodSeconds"]) * int(each["failureThreshold"]) < silent for each in probes
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_absence_is_excused_by_the_pods_that_there_are(overlay: str) -> None:
    pods = only(r'kube_pod_created\{pod=~"([^"]+)"', RULES["OEATargetsAbsent"])
    deployment = only(r'deployment="([^"]+)"', RULES["OEATargetsAbsent"])
    owners = [pod.owner for pod in servers(objects(overlay))]
    assert owners
    for owner in owners:
        name = owner["metadata"]["name"]
        assert re.fullmatch(pods, f"{name}-0")
        assert owner["kind"] != "Deployment" or name == deployment
