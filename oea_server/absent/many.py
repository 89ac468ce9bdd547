"""Many questions about one card, answered in one process: SGLang is imported once.

Run: python -m oea_server.absent.many CARD, with a JSON list of command lines as its input. Prints a
JSON object a line: the fields of `judgement.Answer`, and the seconds that it took."""

from __future__ import annotations

import json
import sys
import time

from oea_server.absent import device, question
from oea_server.absent.cards import CARDS
from oea_server.settings import SettingsError


def main() -> None:
    name = sys.argv[1]
    device.pretend(CARDS[name])
    from oea_server.absent import judgement

    for argv in json.load(sys.stdin):
        start = time.monotonic()
        try:
            found = judgement.answer(question.read([question.ON, name, *argv]))
        except SettingsError as error:
            found = judgement.refused(str(error))
        took = round(time.monotonic() - start, 2)
        print(
            json.dumps({**found._asdict(), "works": found.works, "said": found.said, "took": took}),
            flush=True,
        )


if __name__ == "__main__":
    main()
