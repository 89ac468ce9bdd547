"""SGLang options under which batch-aware routing would be inert or break a promise."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Conflict(NamedTuple):
    option: str
    """SGLang's field name; its flag is the same with dashes."""
    clashes: Callable[[Any], bool]
    why: str


NEVER_MATERIALISED = ("triton_kernel", "flashinfer_trtllm", "flashinfer_mxfp4", "experimental_sgl_trtllm")
"""MoE runners that route inside their own kernel (`TopKOutputFormat` other than STANDARD)."""

CONFLICTS = (
    Conflict(
        "enable_deterministic_inference",
        bool,
        "promises that a request's tokens do not depend on its batch; batch-aware routing makes them depend on it",
    ),
    Conflict("speculative_algorithm", bool, "the verifier would no longer be the target model"),
    Conflict(
        "moe_runner_backend",
        lambda value: value in NEVER_MATERIALISED,
        "this runner routes inside its own kernel, where a policy would be silently inert; use triton",
    ),
    Conflict("enable_torch_compile", bool, "compiled decoding traces the routing once and would bypass the policy"),
    Conflict("enable_dp_attention", bool, "each rank would route only its own tokens"),
    Conflict("moe_a2a_backend", lambda value: value not in (None, "none"), "each rank would route only its own tokens"),
    Conflict("enable_two_batch_overlap", bool, "routes each half of a batch on its own"),
    Conflict("enable_pdmux", bool, "decodes on several streams, each with a batch of its own"),
    Conflict("dllm_algorithm", bool, "diffusion models have no decode steps"),
)
SIMULATED = ("SGLANG_SIMULATE_UNIFORM_EXPERTS", "SGLANG_SIMULATE_ROUND_ROBIN_EXPERTS")


def find(option: Callable[[str], Any]) -> list[str]:
    """One line per conflict, given a way to look up SGLang's options (None where there is none)."""
    found = [
        f"{_flag(conflict.option, value)}: {conflict.why}"
        for conflict in CONFLICTS
        if conflict.clashes(value := option(conflict.option))
    ]
    simulated = [name for name in SIMULATED if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    return found + [f"{name}: overrides every routing decision" for name in simulated]


def find_in_flags(argv: Sequence[str]) -> list[str]:
    """The same from a command line, before SGLang is imported: early, so not the last word."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for option, clashes, _ in CONFLICTS:
        if clashes is bool and option.startswith("enable_"):
            parser.add_argument(_flag(option), action="store_true")
        else:
            parser.add_argument(_flag(option), nargs="?")
    given = vars(parser.parse_known_args(list(argv))[0])
    return find(given.get)


def find_in_server_args(server_args: Any) -> list[str]:
    """The same from SGLang's resolved arguments: the last word."""
    view = resolved(server_args)
    return find(lambda name: getattr(view, name, None))


def resolved(server_args: Any) -> Any:
    """Arguments after SGLang's own defaulting, which 0.5.18+ keeps apart from what was typed."""
    try:
        from sglang.srt.arg_groups.overrides import resolving_view
    except ImportError:
        return server_args
    return resolving_view(server_args)


def _flag(option: str, value: Any = True) -> str:
    flag = "--" + option.replace("_", "-")
    return flag if value is True else f"{flag} {value}"
