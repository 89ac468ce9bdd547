"""Real SGLang servers, started as a user starts them, one at a time (two cores)."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch

from oea_server.demo.build import CONFIG
from oea_server.demo.server import Server
from oea_server.demo.shipped import MODEL
from oea_server.engine import plugin, runtime
from oea_server.engine.routers import Router
from oea_server.settings import Settings
from tests.engine.patched import patched_copy
from tests.engine.recount import Together, record_together, replay_of

LAYERS = int(str(CONFIG["num_hidden_layers"]))
K = int(str(CONFIG["num_experts_per_tok"]))
NEW_TOKENS = 24
PROMPTS = (
    "The import statement combines two operations",
    "An expert is awake if any token of the batch chose it.",
    "def route(router_logits, policy):",
    "1 2 3 4 5 6 7 8",
    "naïve café, 東京",
)

# float32, so that two ways to compute the same thing can be told from two different things
COMMON = ["--dtype", "float32", "--max-total-tokens", "65536", "--random-seed", "1"]
# SGLang 0.5.17 cannot keep routing replays without a GPU (it pins their memory)
REPLAY = version("sglang") != "0.5.17"
# ... and runs one step more before it sees that a request has all its tokens; that step is real, and counted
EXTRA_STEPS = int(version("sglang") == "0.5.17")
if REPLAY:
    COMMON.append("--enable-return-routed-experts")
KEY = "secret"
LINE = Path(__file__).parents[2] / "benchmarks/results/2-core-x86_64/moe-qwen3-30b.json"
SGLANG = (str(Path(sys.executable).with_name("sglang")), "serve")
UNRECORDED = ("eplb-ep2",)
"""Kinds of which nobody asks for a transcript."""
EPLB = ("--enable-eplb", "--ep-num-redundant-experts", "16", "--eplb-rebalance-num-iterations", "40")
KINDS: dict[str, tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]] = {
    # SGLang without our router: only the CPU platform is loaded
    "plain": (("--enable-metrics",), {"SGLANG_PLUGINS": "oea_cpu"}, SGLANG),
    "vanilla": (("--oea-policy", "vanilla"), {}, ()),
    "oea": (("--enable-custom-logit-processor",), {}, ()),
    # plain `sglang serve`, steered by variables alone
    "k3": (("--enable-metrics",), {"OEA_K0": "3", "OEA_MIN_BATCH": "1"}, SGLANG),
    "k3-ep2": (("--oea-k0", "3", "--oea-min-batch", "1", "--oea-pool", "union", "--tp", "2", "--ep-size", "2"), {}, ()),
    "eplb-ep2": (("--tp", "2", "--ep-size", "2", *EPLB), {}, ()),
    "keyed": (("--admin-api-key", KEY, "--oea-per-layer-metrics", "--oea-latency-line", str(LINE)), {}, ()),
    # every rank writes its steps down
    "recorded-ep2": (
        ("--tp", "2", "--ep-size", "2"),
        {"PYTHONPATH": str(Path(__file__).with_name("recorder")), "RECORDER_FOLDER": tempfile.mkdtemp()},
        (),
    ),
}


@dataclass(frozen=True)
class Generation:
    """One greedy request, alone on the server."""

    prompt_ids: list[int]
    prompt_logprobs: list[float]
    ids: list[int]
    logprobs: list[float]
    experts: np.ndarray  # [tokens - 1, layers, k], as SGLang's routing replay returns them


@dataclass(frozen=True)
class Transcript:
    """The same requests to every kind of server, before it saw anything else."""

    generations: list[Generation]
    before: dict[str, float]
    after: dict[str, float]
    families: set[str]
    """All metrics of the server, SGLang's and ours."""


PATCHED = "patched-"
"""Before a kind's name: the same on a copy of SGLang with our patches in it."""


class Servers:
    """Starts the kind that is asked for and stops the one before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kind = ""
        self._server: Server | None = None
        self._transcripts: dict[str, Transcript] = {}
        self._together: dict[str, Together] = {}
        self._undisturbed: dict[str, Together] = {}

    def get(self, kind: str) -> Server:
        if kind != self._kind or self._server is None:
            self.stop()
            flags, environment, command = KINDS[kind.removeprefix(PATCHED)]
            if kind.startswith(PATCHED):
                environment = {**environment, "PYTHONPATH": str(self._patched_sglang())}
            model = ("--model-path", str(MODEL), "--served-model-name", "demo")
            self._server = Server(*model, *COMMON, *flags, environment=environment, command=command)
            self._server.start()
            self._kind = kind
            if kind not in self._transcripts and kind not in UNRECORDED:
                self._transcripts[kind] = record(self._server)
                if REPLAY and kind.removeprefix(PATCHED).startswith("k3"):
                    # nothing else in the batches: a health check's row makes shapes that round otherwise
                    self._undisturbed[kind] = record_together(self._server, LAYERS, K, health_checks=0)
                if REPLAY and kind.startswith("k3"):
                    self._together[kind] = record_together(self._server, LAYERS, K)
        return self._server

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


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    for name in [name for name in os.environ if name.startswith("OEA_")]:
        del os.environ[name]
    os.environ.pop("TRITON_INTERPRET", None)  # the unit tests' own
    started = Servers(tmp_path_factory.mktemp("patched"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def plugged() -> None:
    from sglang.srt.plugins import load_plugins

    originals = {seam: plugin.resolve(seam.target) for seam in plugin.SEAMS}
    assert all(original is not None for original in originals.values())
    assert not any(plugin.took_hold(seam, original) for seam, original in originals.items())
    load_plugins()
    assert plugin.active
    assert plugin.patched == (find_spec(plugin.PATCHED) is not None)
    for seam, original in originals.items():
        assert plugin.took_hold(seam, original) == (seam in plugin.hooks())


@pytest.fixture
def now(plugged: None) -> Iterator[runtime.Runtime]:
    """A runtime that adopted one layer (5) of 16 experts, top 4, and counts it."""
    before = runtime.current
    adopted = runtime.Runtime(Settings(k0="1", min_batch=2))
    assert adopted.adopt([Router(5, 4, True, None)], 16, torch.device("cpu")) == []
    adopted.start_counting(16, 1, torch.device("cpu"))
    runtime.current = adopted
    yield adopted
    runtime.current = before


def record(server: Server) -> Transcript:
    before = server.settled_metrics()
    for _ in range(2):
        assert requests.get(f"{server.url}/health_generate", timeout=30).status_code == 200
    generations = [generate(server, prompt) for prompt in PROMPTS]
    after = server.settled_metrics()
    text = requests.get(f"{server.url}/metrics", timeout=30).text
    return Transcript(generations, before, after, set(re.findall(r"^# HELP (\S+)", text, re.MULTILINE)))


def generate(server: Server, prompt: str, **sampling: Any) -> Generation:
    body = {
        "text": prompt,
        "sampling_params": {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True, **sampling},
        "return_logprob": True,
        "logprob_start_len": 0,
        "return_routed_experts": REPLAY,
    }
    reply = requests.post(f"{server.url}/generate", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    return generation_of(reply.json()["meta_info"])


def generation_of(meta: dict[str, Any]) -> Generation:
    """One answer's `meta_info`."""
    prompt_part, own = meta["input_token_logprobs"], meta["output_token_logprobs"]
    return Generation(
        [token for _, token, _ in prompt_part],
        [logprob for logprob, _, _ in prompt_part[1:]],
        [token for _, token, _ in own],
        [logprob for logprob, _, _ in own],
        replay_of(meta, LAYERS, K),
    )
