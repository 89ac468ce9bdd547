"""Install our wheel into an environment that has SGLang, without touching a package that is there.

    python3 install.py [--constraint FILE] oea_server-….whl

Packages of ours that are missing are installed beside, with everything else held where it is. The build fails
if SGLang's version does not fit, if a package would have to change, or if one did. Then SGLang is patched.
"""

from __future__ import annotations

import argparse
import os
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


def installed() -> dict[str, str]:
    """Every package of this environment and its version; the first found is the one that Python imports."""
    found: dict[str, str] = {}
    for distribution in distributions():
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
    return found


def pip(*words: str) -> None:
    # Debian's and Ubuntu's pythons ask for the flag; it is theirs to say, and this image is nobody else's
    environment = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def missing(before: dict[str, str]) -> list[str]:
    """The requirements of our package that nothing installed meets.

    Raises:
        SystemExit: one is there in a version that does not do.
    """
    absent = []
    for line in requires(OURS) or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonicalize_name(requirement.name)
        if name not in before:
            absent.append(str(requirement))
        elif not requirement.specifier.contains(before[name], prereleases=True):
            raise SystemExit(f"{OURS} wants {requirement}, this image has {before[name]}")
    return absent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraint", type=Path, help="versions for what has to be added")
    parser.add_argument("wheel")
    arguments = parser.parse_args()
    before = installed()
    if "sglang" not in before:
        raise SystemExit("no SGLang in this image")
    pip("--no-deps", arguments.wheel)
    invalidate_caches()
    if absent := missing(before):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as frozen:
            frozen.writelines(f"{name}=={number}\n" for name, number in before.items())
            frozen.flush()
            more = ["--constraint", str(arguments.constraint)] if arguments.constraint else []
            pip("--constraint", frozen.name, *more, *absent)
    after = installed()
    if changed := [f"{name} {old} -> {after.get(name)}" for name, old in before.items() if after.get(name) != old]:
        raise SystemExit(f"packages of this image changed: {', '.join(changed)}")
    added = sorted(f"{name} {after[name]}" for name in after.keys() - before.keys())
    print(f"{len(before)} packages as they were; added: {', '.join(added)}", flush=True)
    patch()


def patch() -> None:
    """Write our seams into SGLang, and compile it: nobody can write bytecode beside it when it serves."""
    subprocess.run(["oea-server", "patch", "apply"], check=True)
    spec = find_spec("sglang")
    assert spec is not None
    folder = str(next(iter(spec.submodule_search_locations or [])))
    # files that this Python does not parse, meant for another, are SGLang's business
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", folder], check=False)


if __name__ == "__main__":
    main()
