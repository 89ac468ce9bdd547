"""What would end the scheduler is refused in one line; what SGLang takes without harm passes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from oea_server.engine.request_bounds import (
    SAMPLES,
    before_generate_request,
    before_validate_one_request,
)

MANAGER = SimpleNamespace(model_config=SimpleNamespace(vocab_size=100))


def validate(input_ids: Any = (1, 2, 3), sampling: Any = None, **fields: Any) -> None:
    obj = SimpleNamespace(sampling_params=sampling or {}, **fields)
    before_validate_one_request(
        MANAGER, obj, list(input_ids) if isinstance(input_ids, tuple) else input_ids
    )


@pytest.mark.parametrize(
    "passes",
    [
        {},
        {"input_ids": [0, 99]},
        {"input_ids": None, "input_embeds": [[0.0]]},
        {"input_ids": [], "input_embeds": [[0.0]]},
        {"input_ids": [10**9], "contains_mm_input": lambda: True},
        {
            "sampling": {
                "stop_token_ids": [0, 99],
                "logit_bias": {"0": 1.0, "99": -1.0},
                "top_k": -1,
            }
        },
        {"sampling": {"stop_token_ids": None, "sampling_seed": 2**62, "temperature": 1e300}},
        {"logprob_start_len": -1, "top_logprobs_num": 0, "token_ids_logprob": None},
        {"logprob_start_len": 3, "top_logprobs_num": 100, "token_ids_logprob": [0, 99]},
        {"input_ids": None, "logprob_start_len": 7},
    ],
)
def test_what_sglang_takes_passes(passes: dict[str, Any]) -> None:
    validate(**passes)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"input_ids": [1, 100]}, "input_ids: token id 100 is outside 0..99"),
        ({"input_ids": [-1]}, "input_ids: token id -1 is outside 0..99"),
        ({"input_ids": [2**70]}, "input_ids: token id 1180591620717411303424 is outside"),
        ({"input_ids": []}, "the prompt is empty"),
        ({"input_ids": ["a\n"]}, "input_ids: 'a\\\\n' is no token id"),
        ({"input_ids": [None]}, "input_ids: 'None' is no token id"),
        ({"sampling": {"stop_token_ids": [100]}}, "stop_token_ids: token id 100"),
        ({"sampling": {"stop_token_ids": [-1]}}, "stop_token_ids: token id -1"),
        ({"sampling": {"stop_token_ids": 5}}, "stop_token_ids: a list of token ids, not '5'"),
        ({"sampling": {"logit_bias": {"100": 1}}}, "logit_bias: token id 100"),
        ({"sampling": {"logit_bias": {"-1": 1}}}, "logit_bias: token id -1"),
        ({"sampling": {"logit_bias": {"x": 1}}}, "logit_bias: 'x' is no token id"),
        ({"sampling": {"top_k": 2**31}}, "top_k: 2147483648 is outside"),
        ({"sampling": {"min_new_tokens": -(2**40)}}, "min_new_tokens: -1099511627776 is outside"),
        ({"token_ids_logprob": [100]}, "token_ids_logprob: token id 100"),
        ({"logprob_start_len": -2}, "logprob_start_len: '-2' is outside -1..3"),
        ({"logprob_start_len": 4}, "logprob_start_len: '4' is outside -1..3"),
        ({"logprob_start_len": [0]}, "logprob_start_len: '\\[0\\]' is outside"),
        ({"top_logprobs_num": 101}, "top_logprobs_num: '101' is outside 0..100"),
        ({"top_logprobs_num": -1}, "top_logprobs_num: '-1' is outside 0..100"),
        ({"positional_embed_overrides": {"embeds": [[1.0]]}}, "positional_embed_overrides"),
    ],
)
def test_what_would_end_the_scheduler_is_one_line(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        validate(**fields)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("n", [SAMPLES + 1, 2**31, 2**70, 1e300, float("nan")])
@pytest.mark.parametrize("field", ["n", "beam_width"])
@pytest.mark.parametrize("whole", [True, False])
def test_more_answers_than_memory_could_hold_are_refused(field: str, n: float, whole: bool) -> None:
    sampling = {field: n} if whole else [{"n": 1}, {field: n}]
    with pytest.raises(ValueError, match=f"^{field}: .* is above {SAMPLES}$"):
        before_generate_request(MANAGER, SimpleNamespace(sampling_params=sampling))


@pytest.mark.parametrize(
    "sampling", [None, {}, {"n": SAMPLES}, {"n": "x", "beam_width": None}, [{}, {"n": 2}], "x", [3]]
)
def test_what_sglang_judges_itself_passes(sampling: Any) -> None:
    before_generate_request(MANAGER, SimpleNamespace(sampling_params=sampling))
