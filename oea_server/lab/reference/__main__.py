"""The command `python -m oea_server.lab.reference`, which writes every page that is made."""

from __future__ import annotations

from oea_server.lab.reference import knobs, metrics, modules, results, rooms, troubleshooting
from oea_server.lab.reference.page import with_list


def main() -> None:
    for each in (knobs, metrics, modules, results, rooms, troubleshooting):
        each.PAGE.write_text(
            with_list(each.PAGE.read_text(encoding="utf-8"), each.entries()), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
