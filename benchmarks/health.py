"""How long a server's health checks take, idle and under load: what the probes of deploy/k8s must
allow for.

    .venv/bin/python benchmarks/health.py [--url URL] [--out FILE]

Without --url it starts the demo model as the cpu-demo overlay does, and times the start too. Writes
deploy/health.json."""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import requests
import torch
from rich.progress import track

from oea_server.client.server import Server
from oea_server.lab.bench.load import play
from oea_server.lab.records import record, stats

OUT = Path(__file__).parents[1] / "deploy/health.json"
PATHS = ("/health", "/health_generate")
CHATS, TOKENS, TIMES = 16, 64, 30


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """16 chats at once, without a pause."""
    stop = threading.Event()

    def keep_on() -> None:
        while not stop.is_set():
            play(url, CHATS, TOKENS)

    thread = threading.Thread(target=keep_on)
    thread.start()
    try:
        time.sleep(5)  # until all 16 decode
        yield
    finally:
        stop.set()
        thread.join()


def timed(url: str) -> dict[str, Any]:
    """Seconds of one call after another.

    Raises:
        requests.HTTPError: the server says that it is not healthy.
    """
    seconds = []
    for _ in track(range(TIMES), description=url):
        start = time.perf_counter()
        requests.get(url, timeout=60).raise_for_status()
        seconds.append(time.perf_counter() - start)
    return {
        "median_s": round(statistics.median(seconds), 3),
        "p99_s": round(stats.percentiles(seconds, 99)[0], 3),
        "max_s": round(max(seconds), 3),
    }


def measure(url: str) -> dict[str, Any]:
    """Every path, idle and loaded."""
    found: dict[str, Any] = {}
    for condition, around in (("idle", nullcontext()), (f"{CHATS} chats", loaded(url))):
        with around:
            found[condition] = {path: timed(url + path) for path in PATHS}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a server that runs; without it the demo model is started")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    start_s = None
    if options.url:
        found = measure(options.url.rstrip("/"))
    else:
        begin = time.perf_counter()
        with Server("--max-running-requests", str(CHATS)) as server:
            start_s = round(time.perf_counter() - begin, 1)
            found = measure(server.url)
    result = {
        "machine": record.machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "versions": record.versions(),
        "command": "python benchmarks/health.py" + (" --url …" if options.url else ""),
        "model": "of --url" if options.url else "demo",
        "tokens_each": TOKENS,
        "times": TIMES,
        "start_s": start_s,
        "latency": found,
    }
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
