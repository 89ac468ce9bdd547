"""Folders that a server writes to, and those of them that this user cannot write to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from oea_server.oneline import oneline
from oea_server.provenance import version

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
WHERE_SET = ("TORCH_EXTENSIONS_DIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "PROMETHEUS_MULTIPROC_DIR")


def places(environ: Mapping[str, str]) -> dict[str, Path]:
    """Variable -> the folder that it, or SGLang's default for it, names."""
    home = Path("~/.cache").expanduser()
    sglang = Path(environ.get("SGLANG_CACHE_DIR") or home / "sglang")
    hub = (
        Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home) / "huggingface")
        / "hub"
    )
    named = {
        "HF_HUB_CACHE": hub,
        INDUCTOR: sglang / "inductor",
        "TRITON_CACHE_DIR": sglang / "triton",
        "FLASHINFER_WORKSPACE_BASE": sglang,
        "CUDA_CACHE_PATH": sglang / "nv",
    }
    if version("sglang") == "0.5.17":  # which leaves these to torch and Triton
        named |= {
            INDUCTOR: Path(tempfile.gettempdir()),
            "TRITON_CACHE_DIR": Path("~/.triton").expanduser(),
        }
    found = {name: Path(environ.get(name) or place) for name, place in named.items()}
    return found | {name: Path(environ[name]) for name in WHERE_SET if environ.get(name)}


def problems(environ: Mapping[str, str]) -> list[str]:
    """Why SGLang would end with a traceback before it serves: one line each."""
    try:
        tempfile.gettempdir()
    except OSError as error:
        return [f"TMPDIR: {error.strerror}; name a folder that {_user()} can write to"]
    place = places(environ)[INDUCTOR]
    if place.is_dir() or (why := unwritable(place)) is None:
        return []  # what is there is opened; only who compiles writes into it
    return [
        f"{INDUCTOR}: {oneline(str(place))} cannot be made: {why}; name a folder that {_user()} can"
        " write to"
    ]


def fact(environ: Mapping[str, str]) -> str | None:
    """The folders that cannot be written to; None if all can."""
    found = [
        f"{oneline(str(place))} ({name}): {why}"
        for name, place in places(environ).items()
        if (why := unwritable(place)) is not None
    ]
    return f"{_user()} cannot write to {'; '.join(found)}" if found else None


def unwritable(place: Path) -> str | None:
    """Why nothing can be written to a folder, or to that in which it would be made; leaves nothing
    behind."""
    there = next((each for each in _upwards(place.absolute()) if os.path.lexists(each)), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return (
            f"{error.strerror}"
            if there == place.absolute()
            else f"{error.strerror} in {oneline(str(there))}"
        )


def _upwards(place: Path) -> Iterator[Path]:
    yield place
    yield from place.parents


def _user() -> str:
    return f"user {os.geteuid()} of group {os.getegid()}"
