"""Writes `docs/coverage.md`: python -m oea_server.lab.recipes. Minutes, most of them spent
importing SGLang."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from oea_server.lab.recipes import commands, page
from oea_server.lab.recipes.asking import ask

PAGE = Path(__file__).parents[3] / "docs" / "coverage.md"


def main() -> None:
    start = time.monotonic()
    found = ask([*commands.recipes(), *commands.cookbook(), *commands.families()])
    PAGE.write_text(page.render(found), encoding="utf-8")
    print(f"{PAGE}: {len(found)} answers in {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
