"""A server that runs: its client, its metrics, its knobs."""

from __future__ import annotations

import time
from typing import Any

import requests
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families


class Remote:
    """An oea-server at a URL such as ``http://127.0.0.1:30000``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    def steer(self, **knobs: object) -> None:
        """Change knobs of the running server (`oea_server.engine.control`), from its next step on.

        Raises:
            RuntimeError: the server refused; with its reason.
        """
        asked = {f"oea_{name}={value}": 1 for name, value in knobs.items()}
        reply = requests.post(f"{self.url}/set_internal_state", json={"server_args": asked}, timeout=60)
        if reply.status_code != requests.codes.ok or not all(reply.json()):
            why = self.state()["refused"] if reply.ok else reply.text
            raise RuntimeError(f"the server refused {knobs}: {why}")

    def state(self) -> dict[str, Any]:
        """The settings in effect, and what runs."""
        info = requests.get(f"{self.url}/server_info", timeout=60).json()
        state: dict[str, Any] = info["internal_states"][0]["oea"]
        return state

    def metrics(self) -> dict[str, float]:
        """/metrics: the value of each `oea_*` sample without labels, by name."""
        text = requests.get(f"{self.url}/metrics", timeout=30).text
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("oea_") and not sample.labels
        }

    def settled_metrics(self) -> dict[str, float]:
        """/metrics once everything so far is in it: reports come once a second, so two equal reads."""
        before: dict[str, float] = {}
        while True:
            time.sleep(1.5)
            now = self.metrics()
            if now == before:
                return now
            before = now
