"""Every table, page and picture of the records in a folder: `python -m benchmarks [FOLDER ...]`.

Without a folder it is each machine's under benchmarks/results, and results/README.md, the table
over all of them. In git lie the records, the pages, and the pictures that a page or a document
shows; .gitignore leaves out the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.index import index
from benchmarks.kinds import KINDS, records
from benchmarks.pages import pages

RESULTS = Path(__file__).parent / "results"


def texts(folder: Path) -> dict[Path, str]:
    """The pages of a folder's records, as they are to be."""
    return {folder / file: text for file, text in pages(records(folder), folder.name).items()}


def index_of(results: Path) -> tuple[Path, str]:
    """The table over all machines' records, as it is to be."""
    return results / "README.md", index(results)


def make(folder: Path) -> None:
    """Write all that a folder's records make."""
    for path, text in texts(folder).items():
        path.write_text(text, encoding="utf-8")
    for name, record in records(folder).items():
        kind = KINDS[record["benchmark"]]
        if kind.draw is not None:
            kind.draw(record, folder / f"{name}.png")
        for suffix, of in kind.more.items():
            (folder / f"{name}{suffix}").write_text(of(record), encoding="utf-8")


def main(folders: list[str]) -> None:
    machines = sorted(each for each in RESULTS.iterdir() if each.is_dir())
    for folder in [Path(each) for each in folders] or machines:
        make(folder)
        print(f"made of the records in {folder}")
    if not folders:
        path, text = index_of(RESULTS)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
