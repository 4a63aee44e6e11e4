"""The repository's Markdown pages: their headings, links, and blocks of commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("docker/*.md")}
)

_FENCE = re.compile(r"^ *(```|~~~)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *#*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its info string, its lines, and the number of its first line in the page."""

    kind: str
    lines: tuple[str, ...]
    line: int


def parse_page(page: Path) -> tuple[list[str], list[Block]]:
    """The lines of a page outside its fenced blocks, and the blocks."""
    outside: list[str] = []
    blocks: list[Block] = []
    kind, began = "", 0
    inside: list[str] | None = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if _FENCE.match(line):
            if inside is None:
                kind, inside, began = line.strip().lstrip("`~").strip(), [], number + 1
            else:
                blocks.append(Block(kind, tuple(inside), began))
                inside = None
        elif inside is None:
            outside.append(line)
        else:
            inside.append(line)
    return outside, blocks


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    counted: dict[str, int] = {}
    found = set()
    for line in parse_page(page)[0]:
        heading = _HEADING.match(line)
        if heading is None:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[2]).lower().replace(" ", "-")
        anchor = re.sub(r"[^\w\-]", "", text)
        again = counted.get(anchor, 0)
        counted[anchor] = again + 1
        found.add(f"{anchor}-{again}" if again else anchor)
    return found


def links(page: Path) -> list[str]:
    """The link targets of a page, except those in code."""
    return [target for line in parse_page(page)[0] for target in _LINK.findall(_CODE.sub("", line))]


def shell_lines(lines: tuple[str, ...]) -> Iterator[str]:
    """The commands of a shell block; continuation lines and open quotations are joined."""
    held = ""
    for line in lines:
        held = f"{held}\n{line}" if held else line
        if held.endswith("\\"):
            held = held.removesuffix("\\").rstrip() + " "
            continue
        try:
            shlex.split(held, comments=True)
        except ValueError:  # an open quotation
            continue
        yield held.replace(" \n", " ")
        held = ""
    assert not held, held


def commands(page: Path) -> Iterator[list[str]]:
    """Each ``volspike …`` command of a page, in a block or inline, as a list of arguments."""
    outside, blocks = parse_page(page)
    texts = [text for line in outside for text in _CODE.findall(line) if not text.startswith("import ")]
    texts += [
        text for block in blocks if block.kind in {"", "sh", "bash", "sh run"} for text in shell_lines(block.lines)
    ]
    texts += [line.strip() for line in outside if line.startswith("    volspike ")]
    for text in texts:
        words = shlex.split(text, comments=True)
        while words and words[0] != "volspike" and not words[0].endswith("/volspike"):
            words = words[1:]
        if len(words) > 1 and not words[1].startswith("…"):
            ends = [
                at
                for at, word in enumerate(words)
                if word in {"&", "|", ">", "&&", "2>&1"} or word.startswith((">", ";"))
            ]
            yield words[: ends[0]] if ends else words
