"""What the plug-in costs: vanilla with it against SGLang without it; routing, tally and metrics
against a decode step.

    .venv/bin/python benchmarks/overhead.py [OUT]

Servers with and without us stay up together, asleep while idle, and take turns in many short
rounds, so that drift of the machine cancels. Routing, with and without its tally, is timed alone
before, on as many tokens as a step has; so is the report that turns a second's counters into
Prometheus series. Writes OUT/overhead.json and prints the same; OUT is
benchmarks/results/<cores>-core-<arch> by default."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from oea_server_demo import MODEL
from rich.progress import track

from oea_server.client.server import Server, without_us
from oea_server.lab.demo.build import CONFIG
from oea_server.lab.demo.compare import play, tokens_per_second
from oea_server.lab.records import files
from oea_server.lab.records.stats import Spread
from oea_server.routing import Policy, Router, default_schedule
from oea_server.routing.host import route
from oea_server.routing.tally import HostTally
from oea_server.settings import Settings

ROUNDS, CHATS, TOKENS = 60, 16, 32


def main() -> None:
    here = f"{os.cpu_count()}-core-{platform.machine()}"
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / here
    model = ("--model-path", str(MODEL), "--max-total-tokens", "65536")
    servers = {
        "without": without_us(*model),
        "vanilla": Server(*model, "--oea-policy", "vanilla"),
        "oea": Server(*model),
    }
    routing, untallied, theirs = time_routing()  # before the servers, which need the cores
    report = time_report()
    speeds: dict[str, list[float]] = {"without": [], "vanilla": []}
    try:
        for name, server in servers.items():
            print(f"starting SGLang: {name}", flush=True)
            server.start()
        for i in track(range(-1, ROUNDS), description="rounds"):
            # there and back: no one is always first
            for name in sorted(speeds, reverse=bool(i % 2)):
                speed = tokens_per_second(servers[name], CHATS, TOKENS)
                if i >= 0:  # the first round warms up
                    speeds[name].append(speed)
        steps = [play(servers["oea"], CHATS, TOKENS) for _ in range(3)]
    finally:
        for server in servers.values():
            server.stop()

    layers = int(str(CONFIG["num_hidden_layers"]))
    step = statistics.median(each.step_seconds for each in steps)
    plain = speeds["without"]
    ratios = [ours / bare for ours, bare in zip(speeds["vanilla"], plain, strict=True)]
    noise = [later / earlier for earlier, later in zip(plain[::2], plain[1::2], strict=True)]
    result = {
        "machine": here,
        "processor": platform.processor() or platform.machine(),
        "versions": {name: version(name) for name in ("oea-server", "sglang", "torch")},
        "command": "python benchmarks/overhead.py",
        "chats": CHATS,
        "tokens_each": TOKENS,
        "tokens_per_second": speeds,
        "vanilla_over_without": Spread.of(ratios)._asdict(),
        "without_over_itself": Spread.of(noise)._asdict(),
        "decode_step_ms": step * 1e3,
        "layers": layers,
        "routing_us_per_layer": routing * 1e6,
        "tally_us_per_layer": (routing - untallied) * 1e6,
        "report_us_once_a_second": report * 1e6,
        "torch_top_k_us_per_layer": theirs * 1e6,
        "routing_share_of_step": layers * routing / step,
        "routing_share_of_step_beyond_top_k": layers * (routing - theirs) / step,
        # one report a second
        "tally_and_report_share_of_step": layers * (routing - untallied) / step + report,
    }
    files.write(out / "overhead.json", result)
    print(json.dumps(result, indent=2))


def time_routing() -> tuple[float, float, float]:
    """Seconds per layer: routing with its tally, without, and the softmax and top-k that it
    replaces."""
    logits = torch.randn(CHATS, int(str(CONFIG["num_experts"])), dtype=torch.bfloat16)
    k = int(str(CONFIG["num_experts_per_tok"]))
    policy = Policy.oea(default_schedule(k))
    tally = HostTally([0], logits.shape[1], 1)

    def theirs() -> None:
        weights, _ = logits.float().softmax(-1).topk(k)
        weights / weights.sum(-1, keepdim=True)

    with torch.inference_mode():
        ours, untallied, plain = timed(
            lambda: route(logits, policy, Router(k), tally=tally),
            lambda: route(logits, policy, Router(k)),
            theirs,
        )
    return ours, untallied, plain


def time_report() -> float:
    """Seconds of one report, of 94 layers (Qwen3-235B's) and 20 steps, into files as in SGLang's
    processes."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from oea_server.engine.control import state_of  # prometheus_client reads the variable once
        from oea_server.engine.runtime import Runtime
        from oea_server.observe.metrics import Metrics
        from oea_server.observe.reporter import Options, Reporter, Sources

        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        layers, steps, runtime = range(94), 20, Runtime(Settings())
        tally, shadow = (HostTally(layers, 128, 8) for _ in range(2))
        sizes = dict.fromkeys(layers, 1)
        counted = Sources(
            tally, shadow, lambda: [(CHATS, 0.05)] * steps, {}, sizes, lambda: state_of(runtime)
        )
        reporter = Reporter(Metrics(), counted, Options(folder=Path(folder)))
        logits = torch.randn(CHATS, 128, dtype=torch.bfloat16)

        def report() -> float:
            for layer in layers:
                for _ in range(steps):
                    route(
                        logits[torch.randperm(CHATS)],
                        Policy.oea(3),
                        Router(8),
                        layer=layer,
                        tally=tally,
                    )
            start = time.perf_counter()
            reporter.report()
            return time.perf_counter() - start

        return statistics.median(report() for _ in range(20))


def timed(*calls: Callable[[], object], times: int = 3000) -> list[float]:
    """Median seconds of each call, warm, by turns."""
    laps: list[list[float]] = [[] for _ in calls]
    for _ in range(times):
        for call, mine in zip(calls, laps, strict=True):
            start = time.perf_counter()
            call()
            mine.append(time.perf_counter() - start)
    return [statistics.median(mine) for mine in laps]


if __name__ == "__main__":
    main()
