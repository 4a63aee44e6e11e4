"""Hooks of MkDocs: pages outside ``docs/``, links to files of the repository, diagrams, and fences of code hosts.

Diagrams become part of the page, so that their colours are those of the page's dark or light mode.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = "docs"

_LOG = logging.getLogger("mkdocs.hooks.repository")
_FENCE = re.compile(r"^( *(?:```|~~~)\w+) run *$", re.MULTILINE)
_CODE = re.compile(r"(^ *(?:```|~~~).*?^ *(?:```|~~~)|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_DARK = re.compile(r"@media \(prefers-color-scheme:dark\)\{.*?\}\}", re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of ``extra.repository_pages``, at their path in the repository."""
    for path in config.extra["repository_pages"]:
        files.append(File.generated(config, path, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as they are in the site, and with fences that Python-Markdown understands."""
    outside = config.extra["repository_pages"]
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if uri in outside else f"{DOCS}/{uri}")

    def site_link(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        name, anchor = target.partition("#")[::2]
        if not name or re.match(r"[a-z]+:|/", name):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, name))
        if path.startswith(f"{DOCS}/diagrams/") and (ROOT / path).is_file():
            drawing = _DARK.sub("", (ROOT / path).read_text()).replace("\n", "")
            return f'<figure class="diagram" markdown="0">{drawing}</figure>'
        there = path if path in outside else posixpath.relpath(path, DOCS)
        if files.get_file_from_path(there) is not None:
            relative = posixpath.relpath(there, posixpath.dirname(uri) or ".")
            return f"{image}[{text}]({relative}{'#' if anchor else ''}{anchor})"
        if path.startswith(f"{DOCS}/"):
            return match[0]  # MkDocs reports it
        if not (ROOT / path).exists():
            _LOG.warning("%s links to '%s', which the repository does not contain", uri, target)
        return f'<span class="repository-file" title="{path} in the repository">{text}</span>'

    text: list[str] = []
    for at, part in enumerate(_CODE.split(markdown)):
        text.append(part if at % 2 else _LINK.sub(site_link, part))
    return _FENCE.sub(r"\1", "".join(text))
