"""What Prometheus answers to each panel's queries after minutes of changing load on a server."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
from oea_server_demo import MODEL

from deploy.grafana.dashboard import FILE
from loadtest.background import chatting
from oea_server.client.server import Server
from tests.deploy.scraping import Prometheus, prometheus

TIERS = "gold: exact; silver: k0=5; bronze: auto"
RUNGS = Path(__file__).parents[2] / "rungs/demo.json"
FLAGS = (
    *("--model-path", str(MODEL), "--served-model-name", "demo", "--dtype", "float32"),
    *("--max-total-tokens", "65536", "--random-seed", "1", "--oea-per-layer-metrics"),
    *("--oea-tiers", TIERS, "--oea-default-tier", "bronze"),
    *("--oea-target-tpot", "25ms", "--oea-rungs", str(RUNGS)),
)
PHASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("controller", 4, {}),
    ("vanilla", 12, {"policy": "vanilla"}),
    ("shadow", 12, {"policy": "shadow"}),
    ("oea", 12, {"policy": "oea"}),
    ("k0", 12, {"k0": "6"}),
    ("more", 24, {"k0": "auto"}),
    ("few", 2, {}),
)
"""Name, chats without a tier, knobs: one after the other. The first is the controller's."""
SECONDS = 60
"""Of each phase."""
STEP = 5
"""Seconds between two points of a panel."""


def record() -> dict[str, Any]:
    """Start a server and Prometheus, load, and ask what each panel asks. About eight minutes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(*FLAGS))
        seen = stack.enter_context(prometheus(folder, server.port, relabel=True))
        start = time.time()
        for tier in ("gold", "silver"):
            wish = {"custom_params": {"oea": {"tier": tier}}}
            stack.enter_context(chatting(server.url, 2, tier, wish))
        for name, chats, knobs in PHASES:
            print(f"{name}: {chats + 4} chats", flush=True)
            if knobs:
                server.steer(**knobs)
            with chatting(server.url, chats, name):
                time.sleep(SECONDS)
        return answers(seen, start, time.time())


def answers(seen: Prometheus, start: float, end: float) -> dict[str, Any]:
    """The series of each query of the dashboard, as Prometheus gives them, by its expression."""
    dashboard = json.loads(FILE.read_text())
    queries = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found = {
        query["expr"]: asked(seen, query["expr"], start, end)
        for query in (*queries, *dashboard["annotations"]["list"])
    }
    return {"from": start, "to": end, "step": STEP, "series": found}


def asked(seen: Prometheus, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """The series of a range query, with the dashboard's variables filled in: all that there is."""
    filled = re.sub(r"\$(\w+)", lambda name: "1m" if name[1] == "window" else ".+", expression)
    query = {"query": filled, "start": str(start), "end": str(end), "step": str(STEP)}
    reply = requests.get(f"{seen.url}/api/v1/query_range", params=query, timeout=60).json()
    if reply["status"] != "success":
        raise RuntimeError(f"{expression}: {reply.get('error')}")
    series: list[dict[str, Any]] = reply["data"]["result"]
    return series


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(record()))
