"""A checkpoint, a text and a file of what was measured, ready to be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from oea_server import shipped
from oea_server.lab.bench import timing
from oea_server.lab.quality import text
from oea_server.lab.quality.documents import documents
from oea_server.lab.quality.evaluation import fingerprint, load, routers_of
from oea_server.lab.quality.routed import routers
from oea_server.lab.quality.search.asked import Wanted
from oea_server.lab.quality.search.candidates import Space, space
from oea_server.lab.quality.search.ledger import Ledger
from oea_server.lab.quality.search.measuring import offline
from oea_server.lab.records import record
from oea_server.routing.fastest import way


class Opened(NamedTuple):
    """Args:
    at: for a batch size, what measures at it.
    about: what a record is of.
    """

    space: Space
    at: Any
    about: dict[str, Any]
    ledger: Ledger
    device: torch.device
    folder: Path


def opened(wanted: Wanted, folder: Path | None) -> Opened:
    """Load what is needed; whatever is wrong with it is said before the weights are read.

    Raises:
        ValueError: the model, the text or the file to go on from does not fit.
        OSError: one of them cannot be read.
    """
    path, source = wanted.model or str(shipped.model()), wanted.source or shipped.held_out()
    documents(source)
    shape = routers_of(path)
    found = space(shape.k, shape.num_experts, wanted.ranks, shape.renormalize)
    device = timing.pick_device()
    folder = folder or record.default_folder(device)
    folder.mkdir(parents=True, exist_ok=True)
    network, tokenizer = load(path, device)
    said = text.load(source, tokenizer, wanted.length, wanted.sequences, "mixed", wanted.seed)
    about = {
        "model": {
            "name": Path(wanted.model).name if wanted.model else "the demo model",
            "sha256": fingerprint(Path(path)),
            "k": shape.k,
            "experts": shape.num_experts,
        },
        "text": {
            "name": source.name,
            "sha256": said.sha256,
            "sequences": wanted.sequences,
            "length": wanted.length,
        },
        "ranks": wanted.ranks,
        "seed": wanted.seed,
        "routing": way(device, 2, shape.num_experts, shape.k).name,
    }
    ledger = Ledger(folder / f"{wanted.name}.jsonl", about)
    at = offline(network, routers(network), said, wanted.ranks, ledger)
    return Opened(found, at, about, ledger, device, folder)
