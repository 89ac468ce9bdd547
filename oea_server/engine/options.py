"""SGLang's options that decide which rows a router sees, or whether it is asked at all.

Each is refused (`CONFLICTS`), or it says why the real rows of a decode step stay the first rows of
what a router gets, or are known (`KEPT`). `engine.options_apart` names all the others.

Source: SGLang's own list of layouts whose real rows are no prefix,
`ForwardBatch.moe_num_token_non_padded` (model_executor/forward_batch_info.py). `engine.guard` ends
the process where a layout slips through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from oea_server.engine import materialise


class Conflict(NamedTuple):
    """An option that is refused, when it has a value that clashes."""

    option: str
    """SGLang's field of `ServerArgs`."""
    clashes: Callable[[Any], bool]
    why: str
    rows: bool = False
    """Whether rows are the matter: then not even vanilla's steps can be counted."""
    aliases: tuple[str, ...] = ()
    """Other flags that set the same field as the option."""
    named: str = ""
    """The flag, where it is not the field's name with dashes."""
    instead: str = "leave it out, or serve vanilla (--oea-policy vanilla)"
    """What to do."""

    @property
    def flag(self) -> str:
        return self.named or "--" + self.option.replace("_", "-")


def _above_one(value: Any) -> bool:
    """For widths of groups of ranks; a command line's are text."""
    try:
        return int(value) > 1
    except (TypeError, ValueError):
        return False


def given(value: Any) -> bool:
    """For names, of which SGLang writes the absent one as "none" or "null"."""
    return value not in (None, "", "none", "null")


ALGORITHMS = ("EAGLE", "EAGLE3", "NEXTN", "FROZEN_KV_MTP", "STANDALONE", "NGRAM", "DFLASH")
"""Algorithms of speculative decoding whose verify pass has as many rows for each request, in a
chain or in a tree (`engine.drafts`)."""


def _unknown_drafts(algorithm: Any) -> bool:
    return given(algorithm) and str(algorithm).upper() not in ALGORITHMS


def _never_materialises(runner: Any) -> bool:
    """Whatever the model is, but for LoRA. Of other runners it depends on a layer's experts: the
    built routers tell."""
    return runner == "experimental_sgl_trtllm" or (
        runner == materialise.RUNNER and not materialise.can()
    )


ALL_TO_ALL = ("deepep", "deepep_v2", "mooncake", "nixl", "mori", "flashinfer", "megamoe", "pplx")
"""All-to-all backends that dispatch what `select_experts` has chosen for a rank's own rows: each
rank routes those, from a pool of its own (`engine.gathered`). docs/dp-attention.md says where that
was read, and what was run."""

DEALT_OUT = (
    "deals the rows of a batch out over the ranks that share it, and which of them a router sees in"
    " a decode step was never checked; give every rank a batch of its own: --dp-size, or"
    " --attn-dp-size, equal to --tp-size, with --enable-dp-attention"
)
"""Said where ranks share a batch and route their own rows alone."""


def _unread(backend: Any) -> bool:
    return given(backend) and backend is not True and backend not in ALL_TO_ALL


_WHOLE_STEP = "runs a decode step in kernels of its own, where a policy would be silently inert"

CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        "enable_deterministic_inference",
        bool,
        "promises that a request's tokens do not depend on its batch; batch-aware routing makes"
        " them depend on it",
    ),
    Conflict(
        "speculative_algorithm",
        _unknown_drafts,
        "which rows its verify pass has, and what they follow from, was never checked",
        True,
        ("--speculative-algo",),
        instead=f"use one of {', '.join(ALGORITHMS)}",
    ),
    Conflict(
        "decoupled_spec_role",
        given,
        "drafts come from another server, and its verify pass was never checked",
        True,
    ),
    Conflict(
        "moe_runner_backend",
        _never_materialises,
        "this runner routes inside its own kernel, where a policy would be silently inert",
        instead=f"use triton, or on Blackwell {materialise.ROUTED}",
    ),
    Conflict("enable_nvidia_megakernel", bool, _WHOLE_STEP),
    Conflict("enable_amd_monokernel", bool, _WHOLE_STEP, aliases=("--monokernel-backend",)),
    Conflict(
        "enable_torch_compile",
        bool,
        "compiled decoding traces the routing once and would bypass the policy",
    ),
    Conflict(
        "moe_a2a_backend",
        _unread,
        "where this backend takes a token's experts from was never read",
        True,
        instead=f"use one of {', '.join(ALL_TO_ALL)}",
    ),
    Conflict("dwdp_size", _above_one, "each rank would route only its own tokens", True),
    Conflict(
        "moe_dp_size",
        _above_one,
        "ranks hold the experts in groups, and which rows a group routes in a decode step was never"
        " checked",
        True,
        ("--moe-data-parallel-size",),
    ),
    Conflict(
        "attn_cp_size",
        _above_one,
        "deals rows out over ranks, and which of them a router sees in a decode step was never"
        " checked",
        True,
        ("--attention-context-parallel-size",),
    ),
    Conflict("enable_layernorm_sp", bool, "deals rows out over ranks between layers", True),
    Conflict(
        "elastic_ep_backend",
        given,
        "ranks that join while the server runs bring rows of their own to a step",
        True,
    ),
    Conflict(
        "ep_join_mode",
        given,
        "joins other ranks' steps with rows of its own",
        True,
        named="--elastic-ep-join-mode",
    ),
    Conflict(
        "enable_pdmux", bool, "decodes on several streams, each with a batch of its own", True
    ),
    Conflict("dllm_algorithm", bool, "diffusion models have no decode steps", True),
)


def dealt_out(option: Callable[[str], Any]) -> str | None:
    """The all-to-all backend that would deal out the rows of one batch over several ranks, with the
    reason; else None.

    Args:
        option: looks up SGLang's resolved options; None where there is none.
    """
    backend = option("moe_a2a_backend")
    batches = option("attn_dp_size") or 1
    if batches == 1 and option("enable_dp_attention"):
        batches = option("dp_size")
    if not given(backend) or (option("tp_size") or 1) <= batches:
        return None
    return f"--moe-a2a-backend {backend}: {DEALT_OUT}"


def halved(option: Callable[[str], Any], untold: Callable[[], str]) -> str | None:
    """Why the halves of a step could not be told from each other, under two-batch overlap; else
    None.

    Args:
        option: looks up SGLang's resolved options; None where there is none.
        untold: why this SGLang does not tell routers of halves; empty if it does.
    """
    if not option("enable_two_batch_overlap"):
        return None
    if not given(option("moe_a2a_backend")):
        why = (
            "without --moe-a2a-backend SGLang cuts prefills alone in two; halves of a decode step"
            " were never checked; give --moe-a2a-backend"
        )
    else:
        why = untold()
    return f"--enable-two-batch-overlap: {why}" if why else None


_ALL_RANKS = "every rank of the group has all rows, and sums what it computed of them"
_PREFILL_ONLY = "deals out the rows of prefills only; in a decode step every rank has them all"
_GRAPH = "a graph pads a step behind its rows; their number is read on the device at each replay"
_AFTER = "comes after the router has chosen"
_TOGETHER = (
    "all ranks' rows come together before a router; SGLang tells every rank how many each has"
    " (gathered.py)"
)

KEPT: dict[str, str] = {
    "tp_size": _ALL_RANKS,
    "ep_size": "ranks share out the experts, not the rows: each routes all of them alike",
    "pp_size": "stages share out the layers, not the rows",
    "pp_max_micro_batch_size": (
        "each micro-batch is a batch, and its forward pass a step of its own"
    ),
    "pp_async_batch_depth": "each micro-batch is a batch, and its forward pass a step of its own",
    "dp_size": (
        "makes replicas, each with batches of its own; with --enable-dp-attention it is what"
        " attn_dp_size is"
    ),
    # 0.5.22 moved the width from dp_size to attn_dp_size; 0.5.23 clears the old flag when it
    # resolves it
    "attn_dp_size": _TOGETHER,
    "enable_dp_attention": _TOGETHER,
    "dcp_size": "shards the KV cache of a row, not the rows",
    "enable_prefill_cp": _PREFILL_ONLY,
    "cp_strategy": _PREFILL_ONLY,
    "enable_cp_tp_group_sharing": _PREFILL_ONLY,
    "enable_dsa_prefill_context_parallel": _PREFILL_ONLY,
    "dsa_prefill_cp_mode": _PREFILL_ONLY,
    "enable_prefill_context_parallel": _PREFILL_ONLY,
    "prefill_cp_mode": _PREFILL_ONLY,
    "enable_cp_decode_attn_tp": "slices attention weights, not rows",
    "enable_attn_tp_input_scattered": _PREFILL_ONLY,
    "moe_dense_tp_size": (
        "has SGLang pad a step to a multiple of the ranks, behind its rows (guard: declared rows)"
    ),
    "disable_attn_tp_gather": "takes away that padding",
    "enable_single_batch_overlap": "overlaps kernels of one batch, which stays whole",
    "enable_two_batch_overlap": (
        "each half is a batch, whose tokens SGLang counts for its routers (halves.py)"
    ),
    "enable_mixed_chunk": "a batch with prefill rows in it is no decode step, and runs vanilla",
    "num_continuous_decode_steps": "several steps, each a forward pass of its own",
    "disaggregation_mode": (
        "a decode server's steps are decode steps like any others; a prefill server has none"
    ),
    "enable_pd_role_switch": (
        "a decode server's steps are decode steps like any others; a prefill server has none"
    ),
    "is_embedding": "has no decode steps",
    "language_only": "the language model's steps stay as they are",
    "model_impl": (
        "another implementation brings its own routers, which are inspected when it is built"
    ),
    "cuda_graph_config": _GRAPH,
    "cuda_graph_backend_decode": _GRAPH,
    "cuda_graph_max_bs_decode": _GRAPH,
    "cuda_graph_bs_decode": _GRAPH,
    "disable_cuda_graph_padding": _GRAPH,
    "disable_cuda_graph": "without a graph a router sees the step's rows, as many as requests",
    "disable_decode_cuda_graph": (
        "without a graph a router sees the step's rows, as many as requests"
    ),
    "debug_cuda_graph": (
        "runs the layers anew at each replay, on the graph's rows: padded behind the step's"
    ),
    "ep_num_redundant_experts": _AFTER,
    "init_expert_location": _AFTER,
    "enable_eplb": _AFTER,
    "enable_waterfill": (
        "adds the shared expert to what the router has chosen; such routers run vanilla, and say so"
    ),
    "disable_shared_experts_fusion": (
        "decides whether a router has columns of shared experts, which is inspected"
    ),
    "enforce_shared_experts_fusion": (
        "decides whether a router has columns of shared experts, which is inspected"
    ),
    "lora_use_virtual_experts": _AFTER,
    "kt_method": "computes some experts on the CPU; " + _AFTER,
    "enable_paged_experts": "fetches experts when they are chosen; " + _AFTER,
    "enable_hisparse": "picks which tokens of its own past a row attends to",
    "enable_scattered_sconv": "scatters the hidden dimension, not the rows",
    "boundary_reduction": (
        "sums rows over ranks behind the experts; every rank has them all before the next router"
    ),
}
"""Option -> why a decode step's real rows stay the first of what a router sees, or are known."""
