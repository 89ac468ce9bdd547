"""SGLang's own command in a spawned child, as trainers and supervisors start it: ``in_a_child.py
--model-path … ``."""

from __future__ import annotations

import multiprocessing
import sys


def serve(flags: list[str]) -> None:
    from sglang.cli.main import main

    sys.argv = ["sglang", "serve", *flags]
    main()


if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(sys.argv[1:],))
    child.start()
    child.join()
    sys.exit(child.exitcode)
