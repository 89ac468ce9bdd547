"""The whole grid at one batch size, to judge a search by: `python -m oea_server.lab.quality.search.exhaustive DIR`.

What it measures lies in DIR, as the search's own does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import track

from oea_server.lab.quality.search.asked import Wanted
from oea_server.lab.quality.search.measuring import pieces
from oea_server.lab.quality.search.opening import opened


def main() -> None:
    """Measure, on the demo model and its held-out text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--ranks", type=int, default=1)
    given = parser.parse_args()
    wanted = Wanted(None, None, [given.batch], given.sequences, given.length, given.ranks, 0, "1%", [], "")
    ready = opened(wanted, given.folder, "exhaustive")
    measure = ready.at(given.batch)
    for piece in track(range(pieces(given.sequences, given.batch)), "pieces of the text"):
        for rule in ready.space.all:
            measure(rule, piece)


if __name__ == "__main__":
    main()
