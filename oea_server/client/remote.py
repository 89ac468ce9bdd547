"""A server that runs: its client, its metrics, its knobs."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from oea_server.client import chat
from oea_server.client.ask import ask


class Remote:
    """An oea-server at a URL such as ``http://127.0.0.1:30000``.

    Raises:
        ValueError: it is no such URL, or a proxy on the way could read the key.
    """

    settle = 1.5
    """Seconds between two reads of metrics, more than between two reports."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url
        self.key = key
        self.client = chat.client(url, key, timeout=300)

    def steer(self, **knobs: object) -> None:
        """Change knobs of the running server, from its next step on.

        Raises:
            RuntimeError: the server refused; with its reason.
        """
        reply = ask("PUT", f"{self.url}/oea/config", self.key, json=knobs)
        if not reply.ok:
            raise RuntimeError(f"the server refused {knobs}: {reply.text}")

    def config(self) -> dict[str, Any]:
        """The settings in effect, and what runs (`GET /oea/config`)."""
        return self._get("/oea/config")

    def stats(self) -> dict[str, Any]:
        """What decode steps woke (`GET /oea/stats`)."""
        return self._get("/oea/stats")

    def _get(self, path: str) -> dict[str, Any]:
        reply = ask("GET", f"{self.url}{path}", self.key)
        reply.raise_for_status()
        answer: dict[str, Any] = reply.json()
        return answer

    def samples(self) -> list[Sample]:
        """/metrics: each sample, with its name, labels and value."""
        text = ask("GET", f"{self.url}/metrics", timeout=30).text
        return [each for family in text_string_to_metric_families(text) for each in family.samples]

    def metrics(self) -> dict[str, float]:
        """/metrics: the value of each `oea_*` sample without labels, by name."""
        return {
            sample.name: sample.value
            for sample in self.samples()
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
