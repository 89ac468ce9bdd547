"""What it costs to watch a server: a Prometheus that scrapes it and a page that polls it, against
neither.

    .venv/bin/python benchmarks/observing.py [OUT]

One server with layers of Qwen3-30B's size and 16 streamed completions at once, in short rounds, by
turns with both watching and with nobody; so that drift of the machine cancels, rounds are compared
that followed each other. Writes OUT/observing.json and prints the same; OUT is
benchmarks/results/<cores>-core-<arch> by default."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np
import requests
import torch
from rich.progress import track

from oea_server.lab.bench.load import play
from oea_server.lab.bench.served import own_server
from oea_server.lab.records import files, record
from oea_server.lab.records.stats import bootstrap

LAYERS, CHATS, TOKENS, ROUNDS = 2, 16, 64, 60
SCRAPE, POLL = 5.0, 1.0
"""Seconds between two scrapes, as in deploy/prometheus/prometheus.yml, and between two polls of the
page."""


class Watchers:
    """Both of them, while `watching` is set."""

    def __init__(self, url: str) -> None:
        self.watching = threading.Event()
        self.requests = 0
        for path, pause in (("/metrics", SCRAPE), ("/oea/stats", POLL)):
            threading.Thread(target=self._watch, args=(url + path, pause), daemon=True).start()

    def _watch(self, url: str, pause: float) -> None:
        while True:
            self.watching.wait()
            since = {"since": str(time.time() - 1.5 * POLL)} if url.endswith("stats") else None
            requests.get(url, params=since, timeout=60).raise_for_status()
            self.requests += 1
            time.sleep(pause)


def main() -> None:
    machine = record.machine(torch.device("cpu"))
    out = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path(__file__).parent / "results" / machine["name"]
    )
    tpot: dict[str, list[float]] = {"watched": [], "alone": []}
    with own_server(LAYERS, CHATS) as (server, model):
        watchers = Watchers(server.url)
        for i in track(range(-2, ROUNDS), description="rounds"):
            for name in sorted(tpot, reverse=bool(i % 2)):  # there and back: none is always first
                (watchers.watching.set if name == "watched" else watchers.watching.clear)()
                round_ = statistics.median(play(server.url, CHATS, TOKENS).tpot)
                if i >= 0:  # the first rounds warm up
                    tpot[name].append(round_)
    ratios = [
        watched / alone for watched, alone in zip(tpot["watched"], tpot["alone"], strict=True)
    ]
    noise = [
        later / earlier
        for earlier, later in zip(tpot["alone"][::2], tpot["alone"][1::2], strict=True)
    ]
    result = {
        "machine": machine,
        "versions": record.versions(),
        "command": "python benchmarks/observing.py",
        "model": model._asdict(),
        "chats": CHATS,
        "tokens_each": TOKENS,
        "rounds": ROUNDS,
        "scrape_every_s": SCRAPE,
        "poll_every_s": POLL,
        "answered": watchers.requests,
        "tpot_ms": {
            name: [round(each * 1e3, 3) for each in values] for name, values in tpot.items()
        },
        "watched_over_alone": bootstrap(np.median, ratios)._asdict(),
        "alone_over_itself": bootstrap(np.median, noise)._asdict(),
    }
    files.write(out / "observing.json", result)
    print(
        json.dumps({name: value for name, value in result.items() if name != "tpot_ms"}, indent=2)
    )


if __name__ == "__main__":
    main()
