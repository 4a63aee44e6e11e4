"""The documentation site: every page is in its navigation, and broken links and anchors fail its build."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"
FRAGMENTS = {"feature_rules.md"}


def navigated(entries: list[Any]) -> Iterator[str]:
    """The pages of a navigation, in order."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            (value,) = entry.values()
            yield from [value] if isinstance(value, str) else navigated(value)


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """The result of a strict build."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def small_site(folder: Path, text: str) -> Path:
    """The configuration of a site with one page, everything else as in ``mkdocs.yml``."""
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text(text)
    (folder / "site").mkdir()
    config = folder / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nnav: [{{Home: README.md}}]\nhooks: [{DOCS}/site/hooks.py]\n"
        "theme: {logo: null, favicon: null}\nextra_css: []\nextra: {repository_pages: []}\n"
    )
    return config


def test_every_page_is_in_the_navigation_once() -> None:
    """``mkdocs.yml`` lists each page of ``docs/`` once, except fragments that other pages include."""
    settings = YAML().load(ROOT / "mkdocs.yml")
    pages = list(navigated(settings["nav"]))
    written = {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)} - FRAGMENTS
    outside = set(settings["extra"]["repository_pages"])
    assert sorted(pages) == sorted(written | outside)


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    """A strict build succeeds: links, anchors, navigation and the objects of the reference exist."""
    done = build(ROOT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'id="volspike.library.evaluate"' in (tmp_path / "reference_library.html").read_text()


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[here](missing.md)", "'missing.md'"),
        ("[here](#missing)", "'#missing'"),
        ("[here](../missing.py)", "'../missing.py', which the repository does not contain"),
        ("[here](/missing)", "'/missing'"),
        ("::: volspike.missing", "volspike.missing"),
    ],
    ids=["page", "anchor", "file", "absolute", "object"],
)
def test_a_broken_link_fails_the_build(text: str, finding: str, tmp_path: Path) -> None:
    """A link to a missing page, heading or file of the repository ends the build and is named."""
    done = build(small_site(tmp_path, f"# Title\n\n{text}\n"), tmp_path / "out")
    assert done.returncode == 1
    assert finding in done.stderr
