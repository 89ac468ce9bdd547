"""A request as SGLang's scheduler will read it off the wire: what its decoder refuses ends the
scheduler, and with it the service for all. So the decoder is asked before the request is sent.

Seam: AFTER `TokenizerManager._create_tokenized_object`, which every request passes, alone or of a
batch. A ValueError there is SGLang's own 400."""

from __future__ import annotations

import copy
import re
from typing import Any

OURS = ("input_ids", "mm_inputs", "mm_data_mooncake", "positional_embed_overrides", "time_stats")
"""Fields that do not come from the client as they are sent: token ids as an array, and what SGLang
pickles."""


def after_create_tokenized_object(result: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse a request that the scheduler cannot decode.

    Raises:
        ValueError: one line: the field, and what SGLang expects there.
    """
    import msgspec
    from sglang.srt.managers import io_struct

    seen = copy.copy(result)
    for field in OURS:
        if hasattr(seen, field):
            setattr(seen, field, None)
    try:
        io_struct.msgpack_decode(io_struct.msgpack_encode(seen))
    except (msgspec.ValidationError, OverflowError, TypeError) as error:
        raise ValueError(said(str(error), type(result).__struct_fields__)) from error
    return result


def said(error: str, fields: tuple[str, ...]) -> str:
    """msgspec's words with the name of the field. msgspec gives a field as a place in the message:
    ``$[7]`` is the seventh, after the tag of the type."""
    place = re.search(r"`\$\[(\d+)\]", error)
    if place is None or not 0 < int(place[1]) <= len(fields):
        return f"a field of the request: {error}"
    return f"{fields[int(place[1]) - 1]}: {error.partition(' - at ')[0]}"
