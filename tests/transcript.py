"""The same requests to every kind of server, and what came of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import requests

from oea_server.client.server import Server
from oea_server.lab.demo.build import CONFIG
from tests.engine.recount import replay_of

NEW_TOKENS = 24
PROMPTS = (
    "The import statement combines two operations",
    "An expert is awake if any token of the batch chose it.",
    "def route(router_logits, policy):",
    "1 2 3 4 5 6 7 8",
    "naïve café, 東京",
)
REPLAY = version("sglang") != "0.5.17"
"""SGLang 0.5.17 cannot keep routing replays without a GPU (it pins their memory)."""
EXTRA_STEPS = int(not REPLAY)
"""Steps that 0.5.17 runs before it sees that a request has all its tokens: real ones, and
counted."""
SHAPE = (int(str(CONFIG["num_hidden_layers"])), int(str(CONFIG["num_experts_per_tok"])))


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
    text: str
    """`/metrics` after them."""

    @property
    def families(self) -> set[str]:
        """All metrics of the server, SGLang's and ours."""
        return set(re.findall(r"^# HELP (\S+)", self.text, re.MULTILINE))


def record(server: Server) -> Transcript:
    before = server.settled_metrics()
    for _ in range(2):
        assert requests.get(f"{server.url}/health_generate", timeout=30).status_code == 200
    generations = [generate(server, prompt) for prompt in PROMPTS]
    after = server.settled_metrics()
    return Transcript(
        generations, before, after, requests.get(f"{server.url}/metrics", timeout=30).text
    )


def generate(server: Server, prompt: str, **sampling: Any) -> Generation:
    body = {
        "text": prompt,
        "sampling_params": {
            "temperature": 0,
            "max_new_tokens": NEW_TOKENS,
            "ignore_eos": True,
            **sampling,
        },
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
        replay_of(meta, *SHAPE),
    )
