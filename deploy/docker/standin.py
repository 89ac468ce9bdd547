"""The packages of PyTorch's CPU index, for a machine that cannot reach it: an index of our own in a
folder.

`check.sh` serves it during the build. torch is a CPU wheel that you have. torchvision is the one
that PyPI offers for the same torch, without its compiled operators, which want CUDA's libraries;
SGLang's imports need none of them, and no model without pictures calls them."""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

DECLARE = """import torch
for operator in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                 "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
    torch.library.define(f"torchvision::{operator.split('(')[0]}", operator[operator.index("("):])
"""
"""What torchvision registers shapes for when it is imported, and its compiled part would have
declared."""


def without_operators(wheel: Path, directory: Path) -> Path:
    """torchvision's wheel without its compiled part, under a local version."""
    name, version, *tags = wheel.stem.split("-")
    local = f"{version}+standin"
    target = directory / ("-".join([name, local, *tags]) + ".whl")
    info = f"{name}-{local}.dist-info"
    records = []
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            if entry.endswith(("/", ".so", "/RECORD")) or "torchvision.libs/" in entry:
                continue
            data = old.read(entry)
            if entry == "torchvision/__init__.py":
                data = DECLARE.encode() + data
            if entry.endswith(".dist-info/METADATA"):
                data = data.replace(
                    f"\nVersion: {version}\n".encode(), f"\nVersion: {local}\n".encode()
                )
            path = entry.replace(f"{name}-{version}.dist-info", info)
            new.writestr(path, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{path},sha256={digest},{len(data)}")
        new.writestr(f"{info}/RECORD", "\n".join([*records, f"{info}/RECORD,,"]) + "\n")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("torch", type=Path, help="a CPU wheel of torch")
    parser.add_argument("torchvision", type=Path, help="PyPI's wheel of torchvision for that torch")
    parser.add_argument(
        "index", type=Path, help="folder to make, to be served by python -m http.server"
    )
    arguments = parser.parse_args()
    for name in ("torch", "torchvision"):
        (arguments.index / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(arguments.torch, arguments.index / "torch")
    without_operators(arguments.torchvision, arguments.index / "torchvision")


if __name__ == "__main__":
    main()
