"""A checkpoint's weight files, looked at before any weights load: one that is cut would end every
rank in a traceback.

Only the files that SGLang's default loader opens are looked at, by the library that it opens them
with: so nothing is refused that it would load, and of each file no more is read than its header.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sized

from safetensors import SafetensorError, safe_open

LOOKED_AT = ("auto", "safetensors")
"""Values of --load-format."""
INDEX = "model.safetensors.index.json"
PARTLY = "was it copied or downloaded in part? fetch it anew"


def problems(model_path: str, load_format: str) -> list[str]:
    """What is wrong with the weight files in a folder; [] where there are none that SGLang would
    open so."""
    if load_format not in LOOKED_AT or not os.path.isdir(model_path):
        return []
    files = sorted(glob.glob(os.path.join(model_path, "*.safetensors")))
    if not files:
        return []  # .bin and .pt are no matter of ours
    index = os.path.join(model_path, INDEX)
    if os.path.isfile(index):
        try:
            named = in_index(index)
        except (OSError, ValueError) as error:
            return [f"{index}: {error}; {PARTLY}"]
        if missing := sorted(
            name for name in named if not os.path.isfile(os.path.join(model_path, name))
        ):
            are = "is" if len(missing) == 1 else "are"
            return [f"{index}: names {missing[0]}{_more(missing)}, which {are} not there; {PARTLY}"]
        files = [file for file in files if os.path.basename(file) in named]
    elif [os.path.basename(file) for file in files] == [
        "consolidated.safetensors",
        "model.safetensors",
    ]:
        files = files[1:]  # as SGLang does with Mistral's
    broken = {file: why for file in files if (why := unread(file))}
    if not broken:
        return []
    file, why = next(iter(broken.items()))
    return [f"{file}{_more(broken)}: {why}; {PARTLY}"]


def in_index(path: str) -> set[str]:
    """The files that an index names.

    Raises:
        OSError
        ValueError: it is no index.
    """
    with open(path, encoding="utf-8") as file:
        index = json.load(file)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not all(isinstance(each, str) for each in named.values()):
        raise ValueError("no index of weight files: its weight_map is no object of file names")
    return set(named.values())


def unread(path: str) -> str | None:
    """Why a file cannot be opened; None if it can."""
    try:
        with safe_open(path, framework="numpy"):
            return None
    except SafetensorError as error:
        return f"no whole safetensors file of {os.path.getsize(path)} bytes: {error}"
    except (FileNotFoundError, PermissionError) as error:
        return error.strerror or str(error)
    except OSError:
        return None  # no mmap here, which SGLang can do without


def _more(files: Sized) -> str:
    return f" and {len(files) - 1} more" if len(files) > 1 else ""
