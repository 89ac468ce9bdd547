"""Decode that says given tokens and keeps what the model thought of them: how quality is measured
on a live server.

Seam: SGLang's custom logit processors (`--enable-custom-logit-processor`), which see the logits of
each decode step before sampling. Only a server that was started for it takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor


class Forced(CustomLogitProcessor):  # type: ignore[misc]
    """A processor that makes requests say given tokens and writes down the losses. Custom_params of
    each request are `tokens`, the ids to say, and `file`, where the losses go at the end, in
    nats."""

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any]] | None = None
    ) -> torch.Tensor:
        for row, params in zip(logits, custom_param_list or (), strict=True):
            # not the request's own output: with overlapped scheduling that is a step behind
            losses: list[float] = params.setdefault("losses", [])
            if len(losses) == len(params["tokens"]):
                continue
            token = params["tokens"][len(losses)]
            losses.append(-float(row.float().log_softmax(dim=-1)[token]))
            if len(losses) == len(params["tokens"]):
                Path(params["file"]).write_text(json.dumps(losses))
            row.fill_(-1e4)
            row[token] = 0.0
        return logits


def forced() -> str:
    """The processor as a request carries it."""
    return str(Forced.to_str())
