"""What SGLang's scheduler could not decode is refused before it is sent, field by field of SGLang's
own type."""

from __future__ import annotations

from array import array
from typing import Any

import msgspec
import pytest
from sglang.srt.managers import io_struct
from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
from sglang.srt.sampling.sampling_params import SamplingParams

from oea_server.engine.request_wire import OURS, after_create_tokenized_object, said

FIELDS = TokenizedGenerateReqInput.__struct_fields__
NOT_THESE = (*OURS, "http_worker_ipc")


def request(**fields: Any) -> TokenizedGenerateReqInput:
    return TokenizedGenerateReqInput(
        **{
            "rid": "one",
            "input_text": "hello",
            "input_ids": array("q", [1, 2]),
            "input_embeds": None,
            "mm_inputs": None,
            "token_type_ids": None,
            "sampling_params": SamplingParams(max_new_tokens=3, logit_bias={"5": 1.0}),
            "return_logprob": True,
            "logprob_start_len": -1,
            "top_logprobs_num": 3,
            "token_ids_logprob": [1],
            "stream": True,
            **fields,
        }
    )


def test_a_good_request_passes_as_it_is() -> None:
    asked = request()
    asked.time_stats = object()  # SGLang pickles it later
    assert after_create_tokenized_object(asked) is asked
    assert (list(asked.input_ids), asked.time_stats is None) == ([1, 2], False)


WRONG: dict[str, Any] = {"input_text": [{"no": 1}], "num_items_assigned": 3}
"""What is wrong there; elsewhere a mapping is."""


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in NOT_THESE])
def test_every_field_of_a_wrong_type_is_refused_by_name(field: str) -> None:
    asked = request()
    setattr(asked, field, WRONG.get(field, {"no": 1}))
    with pytest.raises(msgspec.ValidationError):  # so would the scheduler end
        io_struct.msgpack_decode(io_struct.msgpack_encode(asked))
    with pytest.raises(ValueError, match=f"^{field}: ") as refused:
        after_create_tokenized_object(asked)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [2**70, -(2**70)])
def test_a_number_that_no_message_can_hold_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match=r"^a field of the request: "):
        after_create_tokenized_object(request(priority=value))


def test_a_place_without_a_name_is_told_as_it_is() -> None:
    assert said("Expected `int`, got `str` - at `$[99]`", FIELDS).startswith(
        "a field of the request: Expected"
    )
