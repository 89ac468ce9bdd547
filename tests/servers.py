"""Real SGLang servers, started as a user starts them: one at a time (two cores), and each kind
once.

A test that needs one says so: ``@pytest.mark.server("k3")``. `in_order` then sorts the tests by
kind, so that no kind is started twice; a test of several kinds runs while the last of them is up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from oea_server_demo import MODEL

from oea_server.client.server import SGLANG, Server
from oea_server.lab.demo.build import CONFIG
from tests.engine.patched import patched_copy
from tests.engine.recount import Together, record_together
from tests.transcript import REPLAY, Transcript, record

LAYERS = int(str(CONFIG["num_hidden_layers"]))
K = int(str(CONFIG["num_experts_per_tok"]))
KEY = "nobody-elses"
LINE = Path(__file__).parents[1] / "benchmarks/results/2-core-x86_64/moe-qwen3-30b.json"
PLUGIN = Path(__file__).with_name("plugin")
SETTLE = 0.4
"""Seconds between two reads of metrics that are reported ten times a second."""

# float32, so that two ways to compute the same thing can be told from two different things
COMMON = ["--dtype", "float32", "--max-total-tokens", "65536", "--random-seed", "1"]
if REPLAY:
    COMMON.append("--enable-return-routed-experts")
TWO_RANKS = ("--tp", "2", "--ep-size", "2")
DP_ATTENTION = ("--tp", "2", "--dp", "2", "--enable-dp-attention")
EPLB = (
    "--enable-eplb",
    "--ep-num-redundant-experts",
    "16",
    "--eplb-rebalance-num-iterations",
    "40",
)


def with_plugin(*more: Path) -> dict[str, str]:
    """The variable by which a server loads the tests' own plug-in (`tests/plugin`), and what else
    is on that path."""
    return {
        "PYTHONPATH": os.pathsep.join(
            [str(PLUGIN), *map(str, more), os.environ.get("PYTHONPATH", "")]
        )
    }


class Kind(NamedTuple):
    """How a kind of server is started."""

    flags: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012
    command: tuple[str, ...] = ()
    """Instead of `oea-server serve`."""
    key: str | None = None
    recorded: bool = False
    """Whether every rank writes its steps down (tests/plugin)."""


KINDS = {
    # SGLang without our router: only the CPU platform is loaded
    "plain": Kind(("--enable-metrics",), {"SGLANG_PLUGINS": "oea_cpu"}, SGLANG),
    "vanilla": Kind(("--oea-policy", "vanilla")),
    # plain `sglang serve`, steered by variables alone
    "k3": Kind(("--enable-metrics",), {"OEA_K0": "3", "OEA_MIN_BATCH": "1"}, SGLANG),
    # two ranks, each of which writes its steps down
    "k3-ep2": Kind(
        (
            "--oea-k0",
            "3",
            "--oea-min-batch",
            "1",
            "--oea-pool",
            "union",
            "--oea-per-layer-metrics",
            *TWO_RANKS,
        ),
        recorded=True,
    ),
    "eplb-ep2": Kind((*TWO_RANKS, *EPLB)),
    # two ranks with batches of their own, whose rows come together before the routers
    "k3-dp2": Kind(
        ("--oea-k0", "3", "--oea-min-batch", "1", "--oea-pool", "union", *DP_ATTENTION),
        recorded=True,
    ),
    # as a user starts it, with everything that can be asked for besides
    "oea": Kind(
        (
            "--oea-per-layer-metrics",
            "--oea-latency-line",
            str(LINE),
            "--enable-custom-logit-processor",
        ),
        {"OEA_ADMIN_KEY": KEY},
        key=KEY,
    ),
}
PATCHED = "patched-"
"""Before a kind's name: the same on a copy of SGLang with our patches in it."""
ORDER = (
    "plain",
    "vanilla",
    "k3",
    "patched-vanilla",
    "patched-k3",
    "k3-ep2",
    "patched-k3-ep2",
    "eplb-ep2",
    "k3-dp2",
    "patched-k3-dp2",
    "oea",
    "own",
)
"""In which order kinds are started. `own` tests start a server that no other test has a use for."""
KILLED = f"oea-{'0' * 32}"
"""A folder as an earlier start's own."""
UNRECORDED = ("eplb-ep2", "k3-dp2", "patched-k3-dp2")
"""Kinds of which nobody asks for a transcript."""


class Servers:
    """Starts the kind that is asked for and stops the one before."""

    def __init__(self, patched: Path, records: Path, kept: Path) -> None:
        self._folder = patched
        self.records = records
        """A file per rank of the recorded kinds."""
        self.kept = kept
        """The folder for metrics that all starts are given: nobody clears it in between."""
        self._kind = ""
        self._server: Server | None = None
        self._transcripts: dict[str, Transcript] = {}
        self._together: dict[str, Together] = {}
        self._undisturbed: dict[str, Together] = {}
        self.started: list[str] = []
        """The kinds in the order of their starts."""

    def get(self, kind: str) -> Server:
        if kind != self._kind or self._server is None:
            self.stop()
            self._server, self._kind = self._start(kind), kind
            if kind not in self._transcripts and kind not in UNRECORDED:
                self._transcripts[kind] = record(self._server)
                if REPLAY and kind.removeprefix(PATCHED).startswith("k3"):
                    # nothing else in the batches: a health check's row makes shapes that round
                    # otherwise
                    self._undisturbed[kind] = record_together(
                        self._server, LAYERS, K, health_checks=0
                    )
                if REPLAY and kind.startswith("k3"):
                    self._together[kind] = record_together(self._server, LAYERS, K)
        return self._server

    def _start(self, kind: str) -> Server:
        flags, environment, command, key, recorded = KINDS[kind.removeprefix(PATCHED)]
        path = [self._patched_sglang()] if kind.startswith(PATCHED) else []
        environment = {
            **environment,
            **with_plugin(*path),
            "PROMETHEUS_MULTIPROC_DIR": str(self.kept),
        }
        if recorded:
            environment["RECORDER_FOLDER"] = str(self.records)
        model = ("--model-path", str(MODEL), "--served-model-name", "demo")
        server = Server(*model, *COMMON, *flags, environment=environment, command=command, key=key)
        server.settle = SETTLE
        self.started.append(kind)
        server.start()
        return server

    def _patched_sglang(self) -> Path:
        return self._folder if (self._folder / "sglang").exists() else patched_copy(self._folder)

    def together(self, kind: str) -> Together:
        self.transcript(kind)
        return self._together[kind]

    def undisturbed(self, kind: str) -> Together:
        """The same without health checks in between."""
        self.transcript(kind)
        return self._undisturbed[kind]

    def transcript(self, kind: str) -> Transcript:
        if kind not in self._transcripts:
            self.get(kind)
        return self._transcripts[kind]

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server, self._kind = None, ""


def leave_behind(kept: Path) -> None:
    """What a vanilla server that was killed leaves."""
    from prometheus_client.mmap_dict import MmapedDict, mmap_key

    (kept / KILLED).mkdir()
    for name, labels in (
        ("oea_router_active", {}),
        ("oea_router_limits", {"reason": "the policy is vanilla"}),
    ):
        file = MmapedDict(str(kept / KILLED / "gauge_min_1.db"))
        file.write_value(
            mmap_key(name, name, list(labels), list(labels.values()), "left"), 0.0, 0.0
        )
        file.close()
    (kept / KILLED / "1.oea").touch()


def command_lines(server: Server) -> list[str]:
    """What the process list shows of every process of a server."""
    assert server.process is not None
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if os.getsid(int(process.name)) == server.process.pid:
                found.append(process.joinpath("cmdline").read_text(errors="replace"))
    return found


def on(kind: str) -> object:
    """A parameter of a test that runs on a kind of server."""
    return pytest.param(kind, marks=pytest.mark.server(kind), id=kind)


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The tests that need no server, then the others by the kind that they need.

    Raises:
        pytest.UsageError: a test uses a server and does not say which.
    """

    def place(item: pytest.Item) -> int:
        kinds = [kind for mark in item.iter_markers("server") for kind in mark.args]
        if not kinds and "servers" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(
                f"{item.nodeid}: say which kind, as in @pytest.mark.server('oea')"
            )
        return max((1 + ORDER.index(kind) for kind in kinds), default=0)

    return sorted(items, key=place)
