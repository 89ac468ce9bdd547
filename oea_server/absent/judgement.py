"""The judgement of `serve`, on a card that is not here: SGLang's own resolution, and the routers it
would build.

Only after `device.pretend`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from oea_server import doctor, serve
from oea_server.absent import building, own_code, question, ranks
from oea_server.absent.device import OnMeta
from oea_server.absent.question import Question
from oea_server.settings import Settings, SettingsError

ONLY_THERE = (
    "whether the weights are whole and fit beside the KV cache",
    (
        "whether the kernels load and run: sgl_kernel, FlashInfer, DeepGEMM and Triton are not"
        " called here"
    ),
    "whether an all-to-all backend's own library is installed (DeepEP, Mooncake)",
    "the driver's version, how the GPUs are connected, other machines, free ports",
    "how much faster a decode step gets",
)
PREFILL = (
    "a prefill worker has no decode steps: nothing is routed there, and the decode worker is what"
    " to ask about"
)


class Answer(NamedTuple):
    """What a command would come to."""

    problems: list[str]
    """Why `serve` refuses the command; empty if `serve` would start."""
    vanilla: str
    """Why the model would be served without routing; empty if some layer is routed."""
    routed: int
    """Layers whose routing is ours."""
    layers: int
    """MoE layers; 0 where it was refused before a model was built."""
    unhandled: str
    """Why some MoE layers are not routed."""
    resolved: dict[str, Any]
    """Some of SGLang's arguments after its own defaulting."""
    notes: list[str]
    """What was taken for something else."""
    rule: str = ""
    """What the model's routers do, in words; empty where none is ours."""

    @property
    def works(self) -> bool:
        return not self.problems and not self.vanilla

    @property
    def said(self) -> str:
        """In one line."""
        if self.problems:
            return "refused: " + "; ".join(self.problems)
        if self.vanilla:
            return f"served, but nothing is routed: {self.vanilla}"
        if self.routed < self.layers:
            return f"routed in {self.routed} of {self.layers} layers: {self.unhandled}"
        return f"routed in all {self.layers} layers"


SHOWN = (
    "tp_size",
    "ep_size",
    "attn_dp_size",
    "moe_runner_backend",
    "moe_a2a_backend",
    "quantization",
)
"""Of SGLang's arguments, what matters to routing."""


def answer(asked: Question) -> Answer:
    """Judge a question. Leaves the process as it was, but for what SGLang keeps."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ),
        doctor.silenced(logging.ERROR),
    ):
        argv, notes = question.laid_out(asked, Path(folder))
        try:
            notes += own_code.read(f"{folder}/model", asked.config, asked.argv)
        except own_code.NotTrustedError as error:
            return refused(str(error))._replace(notes=notes)
        found = _answer(argv)
        shown = [problem.replace(f"{folder}/model", asked.model) for problem in found.problems]
        return found._replace(problems=shown, notes=[*notes, *found.notes])


def of_weights(server_args: Any) -> list[str]:
    """What SGLang reads off the weight files, which are not here."""
    from sglang.srt.arg_groups.model_override_base import model_config_of
    from sglang.srt.configs.model_config import is_deepseek_v4

    if not is_deepseek_v4(model_config_of(server_args).hf_config):
        return []
    return [
        "whether DeepSeek-V4's experts are FP4 is in the weights: taken as SGLANG_DSV4_FP4_EXPERTS"
        " says, true"
    ]


def refused(*problems: str, resolved: dict[str, Any] | None = None) -> Answer:
    return Answer(list(problems), "", 0, 0, "", resolved or {}, [])


def _answer(argv: list[str]) -> Answer:
    from oea_server.engine import conflicts, int4, workers
    from oea_server.engine.launch import judge

    try:
        launch = serve.check(argv)
    except SettingsError as error:
        return refused(*str(error).splitlines())
    os.environ.update(launch.settings.environment())
    try:
        with doctor.refusals():
            server_args = doctor.resolved_args(launch)
    except doctor.RefusedError as refusal:
        return refused(*refusal.lines)
    view = conflicts.resolved(server_args)
    shown = {name: getattr(view, name, None) for name in SHOWN}
    if view.device != "cuda":
        return refused(
            f"--device {view.device}: it would not be served on this card; leave --device out",
            resolved=shown,
        )
    verdict = judge(launch.settings, server_args, elsewhere=True)
    if verdict.problems:
        return refused(*verdict.problems, resolved=shown)
    try:
        with doctor.refusals():
            server_args.check_server_args()
        with doctor.refusals("SGLang would not build this model"):
            found = built(launch.settings, server_args)
    except doctor.RefusedError as refusal:
        return refused(*refusal.lines, resolved=shown)
    vanilla = verdict.inactive or ""
    if workers.idle(view):
        vanilla = PREFILL
    notes = [*of_weights(server_args), *int4.note(server_args)]
    return found._replace(resolved=shown, vanilla=vanilla or found.vanilla, notes=notes)


def built(settings: Settings, server_args: Any) -> Answer:
    """What a scheduler makes of the routers that SGLang builds: `engine.model_init`, without any
    weights."""
    from sglang.srt.runtime_context import get_parallel

    from oea_server.engine import model_init, routers
    from oea_server.engine.runtime import Runtime

    with ranks.alone(server_args):
        model = building.build(server_args)
        now = Runtime(settings)
        with OnMeta():
            found = model_init.taken_over(now, model, get_parallel().moe_ep_size)
            experts = (
                routers.num_experts(model)
                - model_init.redundant_experts()
                + routers.zero_experts(found)
            )
            problems = now.adopt(found, experts, torch.device("cuda"))
    if problems:
        return refused(*problems)
    reasons = Counter(router.problem for router in found if router.problem is not None)
    unhandled = now.steering.unhandled or "; ".join(map(str, reasons))
    vanilla = "" if now.steering.active else now.steering.reason
    return Answer([], vanilla, len(now.routers), len(found), unhandled, {}, [], now.kinds)
