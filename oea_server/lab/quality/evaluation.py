"""One evaluation from a checkpoint to its page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track

from oea_server import shipped
from oea_server.lab.bench import timing
from oea_server.lab.quality import grid, report, text
from oea_server.lab.quality.arms import Arm, check
from oea_server.lab.quality.documents import documents
from oea_server.lab.quality.routed import Routers, routers
from oea_server.lab.records import files, record
from oea_server.routing.fastest import way

CHUNK = 64
"""Sequences at once, or the largest batch where that is more."""


class Wanted(NamedTuple):
    """What to measure; see `commands.evaluate`."""

    arms: Sequence[Arm]
    batches: Sequence[int]
    ranks: Sequence[int]
    sequences: int
    length: int
    order: Any
    seed: int


def evaluate(
    model: str | None,
    source: Path | None,
    wanted: Wanted,
    command: str,
    folder: Path | None,
    name: str,
) -> dict[str, Any]:
    """Measure, keep a line for each arm, chunk and batch size in `name`.jsonl, and write the record
    and its page.

    Raises:
        ValueError: the model, the text or the file to go on from does not fit.
        OSError: one of them cannot be read.
    """
    path, source = model or str(shipped.model()), source or shipped.held_out()
    documents(source)  # whatever is wrong with it, before minutes of loading
    fits(wanted, routers_of(path))
    device = timing.pick_device()
    network, tokenizer = load(path, device)
    found = text.load(source, tokenizer, wanted.length, wanted.sequences, wanted.order, wanted.seed)
    chunk = max(CHUNK, *wanted.batches)
    chunk = chunk if wanted.sequences % chunk == 0 else max(wanted.batches)
    plan = grid.Plan(wanted.arms, wanted.batches, chunk, wanted.ranks)
    about = described(model, source, found, wanted) | {"chunk": chunk, "ranks": list(wanted.ranks)}
    shape = routers(network)
    # a run that goes on elsewhere, or that an older version began, must not mix implementations
    about["routing"] = {
        str(batch): way(device, batch, shape.num_experts, shape.k).name for batch in wanted.batches
    }
    folder = folder or record.default_folder(device)
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / f"{name}.jsonl"
    measured = grid.run(network, found, plan, lines, about)
    for _ in track(measured, "arms, batch sizes, chunks", total=grid.total(plan, found)):
        pass
    complete = {
        "benchmark": "eval",
        "command": command,
        "machine": record.machine(device),
        "versions": record.versions(),
        **about,
        "batches": list(wanted.batches),
        "rows": grid.rows(grid.read(lines, about), plan, wanted.seed),
    }
    result_file = folder / f"{name}.json"
    result = files.write(result_file, complete)
    page = report.markdown(result)
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
    if find_spec("matplotlib") is not None:
        from oea_server.lab.quality import picture

        picture.draw(result, folder / f"{name}.png")
    lines.unlink()
    print(page)
    print(f"kept: {result_file}, with its page and picture beside it")
    return result


def routers_of(path: str) -> Routers:
    """A checkpoint's routers by its config alone: no weights are read.

    Raises:
        UnsupportedModelError: it has none of a kind that we know.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return routers(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path)))


def fits(wanted: Wanted, found: Routers) -> None:
    """Check arms and ranks against a model, before anything is measured.

    Raises:
        ValueError: one asks for more than the model has.
    """
    for arm in wanted.arms:
        for batch in wanted.batches:
            check(arm, found, batch)
    for ranks in wanted.ranks:
        if found.num_experts % ranks:
            raise ValueError(
                f"--ranks={ranks}: the model's {found.num_experts} experts do not divide over them"
            )


def described(
    model: str | None, source: Path, found: text.Sequences, wanted: Wanted
) -> dict[str, Any]:
    """What a record is of, so that others can tell whether theirs is of the same."""
    return {
        "model": {
            "name": Path(model).name if model else "the demo model",
            "sha256": fingerprint(Path(model) if model else shipped.model()),
        },
        "text": {
            "name": source.name,
            "sha256": found.sha256,
            "sequences": wanted.sequences,
            "length": wanted.length,
            "order": wanted.order,
        },
        "seed": wanted.seed,
    }


def load(path: str, device: torch.device) -> tuple[Any, Any]:
    """A checkpoint and its tokenizer; bfloat16 on a GPU, float32 on a CPU."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = (
        AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map=None).to(device).eval()
    )
    return model, AutoTokenizer.from_pretrained(path)


def fingerprint(path: Path) -> str:
    """Of a checkpoint's weights: sha256 over their files, or over their sizes where there are
    gigabytes."""
    import hashlib

    digest = hashlib.sha256()
    for each in sorted(path.glob("*.safetensors")):
        size = each.stat().st_size
        digest.update(each.read_bytes() if size < 1 << 28 else f"{each.name} {size}".encode())
    return digest.hexdigest()
