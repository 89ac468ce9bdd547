"""A real Prometheus with our configuration, on the ports of a test."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from oea_server.client import ports
from tests.deploy.names import PROMETHEUS

READY_WITHIN = 60.0


class Prometheus:
    """Answers of one that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query.

        Raises:
            AssertionError: it is no PromQL, or its sides do not match.
        """
        reply = requests.get(
            f"{self.url}/api/v1/query", params={"query": expression}, timeout=30
        ).json()
        assert reply["status"] == "success", f"{expression}: {reply.get('error')}"
        series: list[dict[str, Any]] = reply["data"]["result"]
        return series

    def label_values(self, selector: str, label: str) -> list[str]:
        """As Grafana's `label_values(selector, label)`."""
        reply = requests.get(
            f"{self.url}/api/v1/series", params={"match[]": selector}, timeout=30
        ).json()
        return sorted({series[label] for series in reply["data"]})


@contextmanager
def prometheus(folder: Path, target: int, relabel: bool) -> Iterator[Prometheus]:
    """One that scrapes 127.0.0.1:`target` every second.

    Args:
        relabel: False leaves out our relabelling, as an operator's own Prometheus may.
    """
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "2s"}
    (job,) = config["scrape_configs"]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
    if not relabel:
        del job["metric_relabel_configs"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = ports.free()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, folder / "log")
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            if requests.get(f"{url}/-/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
