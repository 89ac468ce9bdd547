"""Weight files that were cut are named before any weights load; whatever SGLang would load is let
through."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from oea_server.engine import checkpoint

TENSORS = {"a": np.zeros((4, 4), dtype=np.float32)}
ONE = "model.safetensors"
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / ONE)
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for shard in SHARDS:
        save_file(TENSORS, tmp_path / shard)
    index(tmp_path, {"weight_map": {str(number): shard for number, shard in enumerate(SHARDS)}})
    return tmp_path


def index(folder: Path, content: object) -> None:
    (folder / checkpoint.INDEX).write_text(json.dumps(content))


def found(folder: Path, load_format: str = "auto") -> list[str]:
    return checkpoint.problems(str(folder), load_format)


def cut(content: bytes) -> bytes:
    return content[:-1]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "cut by a byte": cut,
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut in its header": lambda content: content[:20],
    "cut in its header's size": lambda content: content[:4],
    "empty": lambda _: b"",
    "longer": lambda content: content + b"x",
    "garbage": lambda content: bytes(range(256)) * 4,
    "zeros": lambda content: bytes(len(content)),
    "a header that is no JSON": lambda _: struct.pack("<Q", 8) + b"garbage!",
    "a pointer of git-lfs": lambda _: POINTER,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_named_in_one_line(how: str, model: Path) -> None:
    (model / ONE).write_bytes(BROKEN[how]((model / ONE).read_bytes()))
    (line,) = found(model)
    assert line.startswith(
        f"{model / ONE}: no whole safetensors file of {(model / ONE).stat().st_size} bytes: "
    )
    assert "\n" not in line


@pytest.mark.parametrize("load_format", ["auto", "safetensors"])
def test_whole_files_are_let_through(load_format: str, model: Path) -> None:
    assert found(model, load_format) == []


def test_whole_shards_are_let_through(sharded: Path) -> None:
    assert found(sharded) == []


def test_of_several_the_first_is_named(sharded: Path) -> None:
    for shard in SHARDS[1:]:
        (sharded / shard).write_bytes(b"")
    (line,) = found(sharded)
    assert line.startswith(f"{sharded / SHARDS[1]} and 1 more: ")


def test_a_shard_that_the_index_names_is_missing(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    (line,) = found(sharded)
    assert line.startswith(f"{sharded / checkpoint.INDEX}: names {SHARDS[1]}, which is not there; ")
    (sharded / SHARDS[2]).unlink()
    (line,) = found(sharded)
    assert line.startswith(
        f"{sharded / checkpoint.INDEX}: names {SHARDS[1]} and 1 more, which are not there; "
    )


def test_a_link_to_nothing(model: Path) -> None:
    """As in the hub's cache, where a download was given up."""
    (model / ONE).unlink()
    (model / ONE).symlink_to(model / "blob")
    (line,) = found(model)
    assert line.startswith(f"{model / ONE}: No such file or directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_one_that_this_user_may_not_read(model: Path) -> None:
    (model / ONE).chmod(0)
    (line,) = found(model)
    assert line.startswith(f"{model / ONE}: Permission denied")


@pytest.mark.parametrize("content", [[], {}, {"weight_map": [ONE]}, {"weight_map": {"a": 1}}])
def test_an_index_that_is_none(content: object, model: Path) -> None:
    index(model, content)
    (line,) = found(model)
    assert line.startswith(f"{model / checkpoint.INDEX}: ")


def test_an_index_that_is_cut(sharded: Path) -> None:
    path = sharded / checkpoint.INDEX
    path.write_text(path.read_text()[:-5])
    (line,) = found(sharded)
    assert line.startswith(f"{path}: ")


def unlisted(folder: Path) -> None:
    index(folder, {"weight_map": {"a": ONE}})
    (folder / "other.safetensors").write_bytes(b"")


def consolidated(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes(b"")


def hidden(folder: Path) -> None:
    (folder / f".{ONE}").write_bytes(b"")


def below(folder: Path) -> None:
    (folder / "original").mkdir()
    (folder / "original" / ONE).write_bytes(b"")


def of_torch(folder: Path) -> None:
    (folder / ONE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")


def of_torch_with_an_index(folder: Path) -> None:
    of_torch(folder)
    index(folder, {"weight_map": {"a": ONE}})


def huge(folder: Path) -> None:
    """A whole one of 64 GiB, whose tensors are a hole."""
    size = 1 << 36
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with (folder / ONE).open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


@pytest.mark.parametrize(
    "lie", [unlisted, consolidated, hidden, below, of_torch, of_torch_with_an_index, huge]
)
def test_a_folder_that_sglang_would_load(lie: Callable[[Path], None], model: Path) -> None:
    lie(model)
    assert found(model) == []


@pytest.mark.parametrize(
    "load_format", ["dummy", "gguf", "pt", "npcache", "mistral", "sharded_state", "remote"]
)
def test_a_format_of_which_nothing_is_known(load_format: str, model: Path) -> None:
    (model / ONE).write_bytes(b"")
    assert found(model, load_format) == []


@pytest.mark.parametrize(
    "path", ["Qwen/Qwen3-30B-A3B", "s3://bucket/model", "remote://host", "model.gguf", ""]
)
def test_what_is_no_folder(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert checkpoint.problems(path, "auto") == []
