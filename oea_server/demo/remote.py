"""A server that runs: its client, its metrics, its knobs."""

from __future__ import annotations

import time
from typing import Any

import requests
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families


class Remote:
    """An oea-server at a URL such as ``http://127.0.0.1:30000``."""

    settle = 1.5
    """Seconds between two reads of metrics, more than between two reports."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = OpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0, timeout=300)

    def steer(self, **knobs: object) -> None:
        """Change knobs of the running server, from its next step on.

        Raises:
            RuntimeError: the server refused; with its reason.
        """
        reply = requests.put(f"{self.url}/oea/config", json=knobs, headers=self.headers, timeout=60)
        if not reply.ok:
            raise RuntimeError(f"the server refused {knobs}: {reply.text}")

    def config(self) -> dict[str, Any]:
        """The settings in effect, and what runs (`GET /oea/config`)."""
        return self._get("/oea/config")

    def stats(self) -> dict[str, Any]:
        """What decode steps woke (`GET /oea/stats`)."""
        return self._get("/oea/stats")

    def _get(self, path: str) -> dict[str, Any]:
        reply = requests.get(f"{self.url}{path}", headers=self.headers, timeout=60)
        reply.raise_for_status()
        answer: dict[str, Any] = reply.json()
        return answer

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
        """/metrics once everything so far is in it: two equal reads, `settle` apart."""
        before: dict[str, float] = {}
        while True:
            time.sleep(self.settle)
            now = self.metrics()
            if now == before:
                return now
            before = now
