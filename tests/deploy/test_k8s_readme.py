"""deploy/README.md names what there is."""

from __future__ import annotations

import re

from tests.deploy.manifests import COMPONENTS, K8S, OVERLAYS
from tests.deploy.names import DEPLOY, PANELS
from tests.deploy.references import OUTSIDE_SECRETS

README = (DEPLOY / "README.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (DEPLOY / link).exists(), link
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^## (.+)$", README, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_every_overlay_and_component_is_described() -> None:
    rows = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", section("Overlays"), re.M)
        for name in re.findall(r"`(.+?)`", cell)
    }
    assert rows == {*OVERLAYS, *COMPONENTS}


def test_commands_name_files_that_exist() -> None:
    for path in re.findall(r"apply -k (deploy/[\w/-]+)", README):
        assert (DEPLOY.parent / path / "kustomization.yaml").is_file()
    for path in re.findall(r"^    .*?((?:tests|benchmarks)/[\w/]+\.py)", README, re.M):
        assert (DEPLOY.parent / path).is_file()


def test_it_says_how_to_make_the_secrets() -> None:
    assert set(re.findall(r"kubectl create secret generic (\S+)", README)) == OUTSIDE_SECRETS


def test_panels_have_their_titles() -> None:
    titles = {panel["title"] for panel in PANELS}
    named = set(re.findall(r"\*\*(.+?)\*\*", section("Reading the dashboard")))
    assert len(named) > 5
    assert named <= titles


def test_the_namespace_is_the_overlays() -> None:
    (name,) = set(re.findall(r"kubectl create namespace (\S+)", README))
    for path in (K8S / "overlays").rglob("kustomization.yaml"):
        assert set(re.findall(r"^namespace: (\S+)", path.read_text(), re.M)) <= {name}
