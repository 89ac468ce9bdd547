"""Install our wheels into an environment that has SGLang, without touching a package that is there.

    python3 install.py --pins constraints.txt oea_server-….whl oea_server_demo-….whl

Requirements of ours that are missing are installed beside, in the versions and by the hashes of
--pins, one by one and without what they require: that is looked for in turn. The build fails if a
package that is there does not do, if one is missing and not pinned, or if one changed. Then SGLang
is patched."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib import invalidate_caches
from importlib.metadata import distributions, requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "oea-server"
REMEDY = "take another base, or bring that package up to it in a base of your own"


def installed() -> dict[str, str]:
    """Every package of this environment and its version; the first found is the one that Python
    imports."""
    invalidate_caches()
    found: dict[str, str] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
    return found


def pip(*words: str) -> None:
    # Debian's and Ubuntu's pythons ask for the flag; it is theirs to say, and this image is nobody
    # else's
    environment = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--disable-pip-version-check",
        *words,
    ]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def missing(before: dict[str, str]) -> set[str]:
    """What our package requires, or what was added for it, and nothing installed is.

    Raises:
        SystemExit: one is there in a version that does not do.
    """
    there = installed()
    absent: set[str] = set()
    open_, seen = [(OURS, "")], set[tuple[str, str]]()
    while open_:
        name, extra = open_.pop()
        seen.add((name, extra))
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            wanted = canonicalize_name(requirement.name)
            if wanted not in there:
                absent.add(wanted)
                continue
            if not requirement.specifier.contains(there[wanted], prereleases=True):
                raise SystemExit(
                    f"{name} wants {requirement}, this image has {there[wanted]}: {REMEDY}"
                )
            # what was there before has its own requirements, met or not; an extra of it is ours
            extras = [*requirement.extras, *([] if wanted in before else [""])]
            open_ += [(wanted, each) for each in extras if (wanted, each) not in seen]
    return absent


def pinned(names: set[str], pins: Path) -> str:
    """The lines of a lock that name some packages, with their hashes.

    Raises:
        SystemExit: it lacks one.
    """
    blocks: dict[str, list[str]] = {}
    for block in re.findall(r"^[A-Za-z0-9](?:.*\\\n)*.*\n", pins.read_text(), flags=re.MULTILINE):
        blocks.setdefault(canonicalize_name(re.split(r"[=\[ ]", block)[0]), []).append(block)
    if lacking := sorted(names - blocks.keys()):
        raise SystemExit(
            f"{pins.name} has no {', '.join(lacking)}, which {OURS} needs and this image has not"
        )
    return "".join(block for name in sorted(names) for block in blocks[name])


def add(names: set[str], pins: Path) -> None:
    """Install packages, as a lock has them, and nothing else."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lines:
        lines.write(pinned(names, pins))
        lines.flush()
        # only wheels: what builds others would come without a hash
        pip("--no-deps", "--require-hashes", "--only-binary", ":all:", "--requirement", lines.name)
    if still := sorted(names - installed().keys()):
        raise SystemExit(f"{pins.name} has {', '.join(still)} for other Pythons or machines alone")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pins", type=Path, required=True, help="versions and hashes of what may be added"
    )
    parser.add_argument("wheel", nargs="+")
    arguments = parser.parse_args()
    before = installed()
    if "sglang" not in before:
        raise SystemExit("no SGLang in this image")
    pip("--no-deps", *arguments.wheel)
    while absent := missing(before):
        add(absent, arguments.pins)
    after = installed()
    if changed := [
        f"{name} {old} -> {after.get(name)}"
        for name, old in before.items()
        if after.get(name) != old
    ]:
        raise SystemExit(f"packages of this image changed: {', '.join(changed)}")
    added = sorted(f"{name} {after[name]}" for name in after.keys() - before.keys())
    print(f"{len(before)} packages as they were; added: {', '.join(added)}", flush=True)
    patch()


def patch() -> None:
    """Write our seams into SGLang, and compile it: nobody can write bytecode beside it when it
    serves."""
    subprocess.run(["oea-server", "patch", "apply"], check=True)
    spec = find_spec("sglang")
    assert spec is not None
    folder = str(next(iter(spec.submodule_search_locations or [])))
    # files that this Python does not parse, meant for another, are SGLang's business
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", folder], check=False)


if __name__ == "__main__":
    main()
