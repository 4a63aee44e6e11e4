"""The pages' links have targets, their commands exist, and their tables match the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import PAGES, ROOT, anchors, commands, links, parse_page
from tests.scripts import script

from volspike.cli import app

COMMANDS: dict[str, Any] = {name: app.load_command(name) for name in app.COMMANDS}
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
PACKAGE = ROOT / "src" / "volspike"


def identity(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_have_targets(page: Path) -> None:
    """Every relative link names an existing file and, with an anchor, a heading in it."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    """Anchors are lower case with dashes, without punctuation, numbered if repeated; code contains no headings."""
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c, d?\n## Twin\n## Twin\n```\n# none\n```\n[to](x.md#y) `[no](z.md)`\n")
    assert anchors(page) == {"a-b-c-d", "twin", "twin-1"}
    assert links(page) == ["x.md#y"]


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_commands_exist(page: Path) -> None:
    """Each ``volspike …`` names an existing command and only options of that command."""
    unknown = []
    for _, name, *arguments in commands(page):
        if name.startswith("-") or not re.fullmatch(r"[a-z-]+", name):
            continue
        command = COMMANDS.get(name)
        flags = (
            {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} if command else set()
        )
        used = [word.partition("=")[0].replace("_", "-") for word in arguments if re.match(r"--\w", word)]
        unknown += [f"{name} {flag}" for flag in used if flag not in {*flags, "--help"}]
        if command is None:
            unknown.append(name)
    assert unknown == []


def test_commands_are_read_from_blocks_and_text(tmp_path: Path) -> None:
    """Commands are found in blocks (continued, piped, commented) and inline."""
    page = tmp_path / "page.md"
    page.write_text(
        "`volspike replai --x 1`\n```\na=1 volspike up --pair \\\n  A > f # c\n.venv/bin/volspike gaps\n```\n"
    )
    found = [words[1:] for words in commands(page)]
    assert found == [["replai", "--x", "1"], ["up", "--pair", "A"], ["gaps"]]


def test_packages_are_those_of_the_linter() -> None:
    """The import chain and the table of packages name the packages that import-linter checks."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    rooms = [room.strip() for layer in LAYERS for room in layer.split("|")]
    assert set(rooms) == there - {"__init__", "__main__"}
    assert f"    {' → '.join(LAYERS)}\n" in text
    table = re.findall(r"^\| `(\w+)` \|", text.split("## Packages")[1].split("\n## ")[0], re.MULTILINE)
    assert sorted(table) == sorted(rooms)


def test_replacements_of_the_earlier_system_exist() -> None:
    """Each path and command in the right column of the migration tables exists, except generated files."""
    rows = [line.split(" | ") for line in parse_page(ROOT / "docs" / "migration.md")[0] if line.startswith("| ")]
    here = [word for row in rows[1:] for word in re.findall(r"`([^`]+)`", row[-1])]
    made = re.compile(r"models/artifacts/|thresholds$|metadata\.json$")
    missing = []
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in here:
        if word.startswith("volspike "):
            is_there = word.split()[1] in COMMANDS
        elif word.startswith("make "):
            is_there = word.split()[1] in targets
        else:
            is_there = bool(made.match(word)) or (ROOT / word).exists()
        if not is_there:
            missing.append(word)
    assert len(here) > 30
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links every page, except fragments that other pages include."""
    parts = {"README.md", "feature_rules.md"}
    index = {link.partition("#")[0] for link in links(ROOT / "docs" / "README.md")}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - parts - index == set()


def test_the_workflow_is_valid_and_pinned() -> None:
    """The workflow matches GitHub's schema, and every action has an exact version."""
    file = ROOT / ".github" / "workflows" / "ci.yml"
    command = [script("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    assert done.returncode == 0, done.stdout + done.stderr
    used = re.findall(r"uses: (\S+)", file.read_text())
    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action)] == []
