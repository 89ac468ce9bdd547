"""Writes what is made of `docs/knobs.md`, `docs/metrics.md` and README.md anew: python -m
oea_server.lab.reference."""

from __future__ import annotations

from oea_server.lab.reference import knobs, metrics, results, troubleshooting
from oea_server.lab.reference.page import with_list


def main() -> None:
    for each in (knobs, metrics, results, troubleshooting):
        each.PAGE.write_text(
            with_list(each.PAGE.read_text(encoding="utf-8"), each.entries()), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
