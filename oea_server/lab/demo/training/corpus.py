"""Text to learn from, as it ships with Debian and Python: manual pages, documentation, sources,
licences.

Which files there are depends on the packages that are installed, so a corpus is described by a
manifest. The split is by package: no package has text on both sides, and a paragraph that is held
out is nowhere in the training text."""

from __future__ import annotations

import ast
import gzip
import hashlib
import html
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HELD_OUT = 0.03
"""Share of the packages."""
PER_PACKAGE = 800_000
"""Characters: else one package's documentation is half of the corpus."""
SHORTEST = 400
"""Characters; shorter files say little."""
PARAGRAPH = 60
"""Characters from which on a paragraph is kept once only: licences come with every package."""
QUESTION, ANSWER, END = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"
"""The chat template, around docstrings and manual pages: so that a model so small answers a chat at
all."""

DOCUMENTS = re.compile(r"(\.(md|txt|rst|html|pod|adoc|1|5|7|8))?$|^(README|NEWS|HISTORY|FAQ)")
NOT_TEXT = re.compile(
    r"(?i)^gcloud|changelog|copyright|authors|thanks|\.(png|pdf|ps|svg|css|js|json|tar|amd64|sum)$"
)


class Document(NamedTuple):
    """One file's text, or several chats about one module."""

    package: str
    name: str
    text: str


def documents() -> Iterator[Document]:
    """Everything there is, in an order that depends on names only, each paragraph once, packages
    cut to size."""
    seen: set[bytes] = set()
    taken: dict[str, int] = {}
    # held out keep theirs
    found = sorted(_all(), key=lambda each: (not is_held_out(each.package), _digest(each.name)))
    for each in found:
        text = "\n\n".join(part for part in re.split(r"\n\s*\n", each.text) if _new(part, seen))
        room = PER_PACKAGE - taken.get(each.package, 0)
        if len(text) >= SHORTEST and room >= SHORTEST:
            taken[each.package] = taken.get(each.package, 0) + len(text)
            yield each._replace(text=text[:room])


def is_held_out(package: str) -> bool:
    """Whether a package's text is kept from training."""
    return int.from_bytes(_digest(package)[:4], "big") < HELD_OUT * 2**32


def _all() -> Iterator[Document]:
    share = Path("/usr/share")
    for folder in sorted((share / "man").glob("man[1-8]")):
        for path in sorted(folder.iterdir()):
            if path.is_symlink() or NOT_TEXT.search(path.name):
                continue
            package = re.split(r"[-_.:]", path.name)[0]
            yield Document(f"man-{package}", f"man/{path.name}", plain_manual(_read(path)))
    for path in sorted((share / "doc").rglob("*")):
        name = path.name.removesuffix(".gz")
        if (
            path.is_file()
            and not path.is_symlink()
            and DOCUMENTS.search(name)
            and not NOT_TEXT.search(name)
        ):
            text = _read(path)
            text = (
                plain_html(text)
                if name.endswith(".html") or "<html" in text[:500].lower()
                else text
            )
            inside = path.relative_to(share / "doc")
            yield Document(f"doc-{inside.parts[0]}", f"doc/{inside}", text)
    for path in sorted((share / "perl").rglob("*")):
        if path.suffix in (".pod", ".pm") and path.is_file() and not path.is_symlink():
            yield Document(
                f"perl-{path.stem}", f"perl/{path.relative_to(share / 'perl')}", _read(path)
            )
    for path in sorted((share / "common-licenses").iterdir()):
        if path.is_file() and not path.is_symlink():
            yield Document("licences", f"licences/{path.name}", _read(path))
    yield from _python()


def _python() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for topic, text in sorted(topics.items()):
        yield Document(f"python-topics-{topic[0]}", f"python/topics/{topic}", text)
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if {
            "site-packages",
            "dist-packages",
            "test",
            "tests",
            "idlelib",
            "encodings",
            "pydoc_data",
        } & set(parts):
            continue
        package, name, source = (
            f"python-{parts[0].removesuffix('.py')}",
            "/".join(parts),
            _read(path),
        )
        yield Document(package, f"python/{name}", source)
        if chats := _docstrings(source, path.stem):
            yield Document(package, f"python/{name}#chats", chats)


def _docstrings(source: str, module: str) -> str:
    """Questions about functions and classes, answered by their docstrings."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    chats = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            and (text := ast.get_docstring(node))
            and len(text) > 40
        ):
            verb = "is" if isinstance(node, ast.ClassDef) else "does"
            asked = f"What {verb} {module}.{node.name}{'' if verb == 'is' else ' do'}?"
            chats.append(f"{QUESTION}{asked}{ANSWER}{text}{END}")
    return "\n\n".join(chats)


def plain_manual(source: str) -> str:
    """A manual page without roff's marks, as a chat where it says what its subject is."""
    lines = []
    for line in source.splitlines():
        if line.startswith((".SH", ".SS", ".Sh", ".Ss")):
            lines += ["", line[4:].strip().strip('"').upper()]
        elif line.startswith((".B ", ".I ", ".BR", ".IR", ".BI", ".RB", ".RI", ".IB")):
            lines.append(line[3:].strip().replace('"', ""))
        elif line.startswith((".PP", ".TP", ".IP", ".P", ".LP", ".Pp")):
            lines.append("")
        elif not line.startswith((".", "'")):
            lines.append(line)
    text = re.sub(
        r"\\[fm](\[[^]]*\]|\(..|.)|\\u\[\d+\]\\d|\\[&%|^]|\\s[-+]?\d", "", "\n".join(lines)
    )
    for mark, plain in (
        ("\\-", "-"),
        ("\\(bu", "*"),
        ("\\(aq", "'"),
        ("\\e", "\\"),
        ("\\ ", " "),
        ("\\(dq", '"'),
    ):
        text = text.replace(mark, plain)
    about = re.search(r"\nNAME\n+(\S+).* - +(.+)\n", text)
    if about and (said := re.search(r"\nDESCRIPTION\n+((?:.+\n+){1,12})", text)):
        return (
            f"{QUESTION}What is"
            f" {about[1].strip(',')}?{ANSWER}{about[2]}\n{said[1].strip()}{END}\n\n{text}"
        )
    return text


def plain_html(source: str) -> str:
    """A page without its tags."""
    source = re.sub(r"(?is)<(script|style|head).*?</\1>", "", source)
    source = re.sub(r"(?i)</?(p|div|h\d|li|tr|pre|br|dt|dd)\b[^>]*>", "\n", source)
    return re.sub(r"\n\s*\n\s*(\n\s*)+", "\n\n", html.unescape(re.sub(r"<[^>]+>", "", source)))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (OSError, UnicodeDecodeError, EOFError):
        return ""  # not text


def _new(paragraph: str, seen: set[bytes]) -> bool:
    if len(paragraph) < PARAGRAPH:
        return True
    digest = _digest(" ".join(paragraph.split()))
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()[:12]
