"""Questions to `absent.judgement` in a process that watches sockets and CUDA; the last again after
SGLang was changed.

Run: python -m tests.engine.elsewhere CARD, with a JSON list of command lines as its input. Prints a
JSON object: the answers, what they are after SGLang's default runner was changed, and what of this
machine was touched."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from oea_server.absent import device, question
from oea_server.absent.cards import CARDS

TOUCHED: list[str] = []
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in NETWORK:
        TOUCHED.append(f"{event} {arguments[1:]}")


class NoGPU:
    """Of SGLang's platforms none."""

    def __getattr__(self, name: str) -> bool:
        return False


def main() -> None:
    sys.addaudithook(watch)
    questions = [question.read([question.ON, sys.argv[1], *argv]) for argv in json.load(sys.stdin)]
    device.pretend(CARDS[sys.argv[1]])
    torch.cuda._lazy_init = torch._C._cuda_init = lambda: TOUCHED.append("CUDA")  # type: ignore[assignment]
    from oea_server.absent import judgement

    answers = [judgement.answer(each) for each in questions]
    from sglang.srt.arg_groups.model_overrides import gpt_oss

    # SGLang's rule for gpt-oss' runner, as if it knew no kernel of its own for any GPU
    gpt_oss.get_platform = NoGPU
    changed = judgement.answer(questions[-1])
    answered = [
        {**each._asdict(), "said": each.said, "works": each.works} for each in (*answers, changed)
    ]
    print(
        "\n" + json.dumps({"answers": answered[:-1], "changed": answered[-1], "touched": TOUCHED})
    )


if __name__ == "__main__":
    main()
