"""Numbers of a request that would end SGLang's scheduler, and the service for all: refused.
Examples are token ids outside the vocabulary, places outside the prompt, more alternatives than
there are tokens, what overflows a tensor.

Seams: BEFORE `TokenizerManager._validate_one_request`, which every request passes, alone or of a
batch; and BEFORE `TokenizerManager.generate_request`, for what SGLang multiplies a request by
before that. A ValueError there is SGLang's own 400."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

INT32 = 2**31
"""What sampling puts into tensors of int32 (`sglang.srt.sampling`) has these bounds."""
WIDE = ("sampling_seed",)
"""Fields beyond int32 that SGLang holds to its own bounds."""
SAMPLES = 4096
"""Answers that one prompt may ask for: SGLang makes a request of each before it looks at any."""


def before_generate_request(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse a request that asks for more answers than memory could hold.

    Raises:
        ValueError: one line: the number and the bound.
    """
    sampling = getattr(obj, "sampling_params", None)
    for each in sampling if isinstance(sampling, list) else [sampling]:
        for field in ("n", "beam_width"):
            asked = each.get(field) if isinstance(each, Mapping) else None
            if isinstance(asked, int | float) and not asked <= SAMPLES:
                raise ValueError(f"{field}: {asked} is above {SAMPLES}")


def before_validate_one_request(
    self: Any, obj: Any, input_ids: Any, *args: Any, **kwargs: Any
) -> None:
    """Refuse a request that names a token that the model has not.

    Raises:
        ValueError: one line: the field, the id and the bounds.
    """
    vocab_size = self.model_config.vocab_size
    sampling = obj.sampling_params if isinstance(obj.sampling_params, Mapping) else {}
    if getattr(obj, "contains_mm_input", bool)():
        input_ids = None  # holds ids of images, which no embedding is read for
    elif (
        input_ids is not None and len(input_ids) == 0 and getattr(obj, "input_embeds", None) is None
    ):
        raise ValueError("the prompt is empty: a request needs a token at least")
    named = {
        "input_ids": input_ids,
        "stop_token_ids": sampling.get("stop_token_ids"),
        "token_ids_logprob": getattr(obj, "token_ids_logprob", None),
        "logit_bias": sampling.get("logit_bias"),
    }
    for field, ids in named.items():
        if ids is not None and (line := problem(field, ids, vocab_size)):
            raise ValueError(line)
    if (overrides := getattr(obj, "positional_embed_overrides", None)) is not None:
        check_overrides(overrides)
    for field, each in sampling.items():
        if isinstance(each, int) and field not in WIDE and not -INT32 <= each < INT32:
            raise ValueError(f"{field}: {each} is outside {-INT32}..{INT32 - 1}")
    start, top = getattr(obj, "logprob_start_len", None), getattr(obj, "top_logprobs_num", None)
    length = None if input_ids is None else len(input_ids)
    if start is not None and not (
        isinstance(start, int) and -1 <= start <= (start if length is None else length)
    ):
        raise ValueError(
            f"logprob_start_len: {str(start)[:100]!a} is outside -1..{length}; -1 is the"
            " prompt's end"
        )
    if top is not None and not (isinstance(top, int) and 0 <= top <= vocab_size):
        raise ValueError(f"top_logprobs_num: {str(top)[:100]!a} is outside 0..{vocab_size}")


def problem(field: str, ids: Any, vocab_size: int) -> str | None:
    """What is wrong with the ids of a field, None if nothing is."""
    if not isinstance(ids, Iterable) or isinstance(ids, str):
        return f"{field}: a list of token ids, not {str(ids)[:100]!a}"
    if (
        isinstance(ids, list)
        and set(map(type, ids)) == {int}
        and min(ids) >= 0
        and max(ids) < vocab_size
    ):
        # all prompts but the wrong ones; the loop below takes milliseconds for a long one
        return None
    for each in ids:
        try:
            token = int(each)
        except (TypeError, ValueError, OverflowError):
            return f"{field}: {str(each)[:100]!a} is no token id"
        if not 0 <= token < vocab_size:
            return f"{field}: token id {token} is outside 0..{vocab_size - 1}"
    return None


def check_overrides(overrides: Any) -> None:
    """Refuse embeddings that came as JSON: SGLang wants its own type there, and looks at it in the
    scheduler."""
    from sglang.srt.managers.embed_types import PositionalEmbeds

    if not isinstance(overrides, PositionalEmbeds):
        raise ValueError(
            "positional_embed_overrides: SGLang takes them from its own Python interface alone"
        )
