"""Bytes of an expert in each format of weights, of models that SGLang builds for a card that is not
here.

Run: python -m tests.engine.weigh_experts CARD, with a JSON list of [config, flags] as its input.
Prints a JSON list: the bytes of each, by layer, or the error."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from oea_server.absent import device, question
from oea_server.absent.cards import CARDS


def main() -> None:
    card = CARDS[sys.argv[1]]
    device.pretend(card)
    from oea_server.absent import building, judgement, ranks
    from oea_server.engine import routers

    found: list[Any] = []

    def weighed(settings: Any, server_args: Any) -> Any:
        with ranks.alone(server_args):
            found.append(sorted(set(routers.expert_bytes(building.build(server_args)).values())))
        return judgement.refused("weighed")

    judgement.built = weighed
    for config, flags in json.load(sys.stdin):
        before = len(found)
        with tempfile.TemporaryDirectory() as folder:
            said = judgement.answer(question.Question(card, flags, config, str(Path(folder)), []))
        if len(found) == before:
            found.append(said.said)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
