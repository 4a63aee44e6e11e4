"""Plain technical English: wordings that the project does not use, found by file and line.

``python tests/docs/test_language.py src/volspike/evaluation docs`` prints the findings of files and folders; without
arguments it checks ``PATHS``. What is read of a file depends on its kind:

- Python: docstrings and comments; in ``src``, ``docs`` and ``benchmarks`` also each string that reads as prose
  (messages, help texts, descriptions of metrics);
- Markdown: the text outside code, and the comments of shell blocks; notebooks: Markdown cells, and code as Python;
- web pages, Grafana and Prometheus texts, Compose files, Dockerfiles, the Makefile and workflows: everything.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

PATHS: Final = (
    ".ci",
    ".github",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "benchmarks",
    "docker",
    "docs/README.md",
    "docs/alerting.md",
    "docs/architecture.md",
    "docs/cli.md",
    "docs/decisions",
    "docs/drift_summary.md",
    "docs/feature_rules.md",
    "docs/feature_spec.md",
    "docs/genai_appendix.md",
    "docs/generate.py",
    "docs/getting_started.md",
    "docs/glossary.md",
    "docs/grafana.py",
    "docs/history.md",
    "docs/load_test_results.json",
    "docs/metrics.md",
    "docs/migration.md",
    "docs/model_card_v1.md",
    "docs/performance.py",
    "docs/performance_summary.md",
    "docs/production.md",
    "docs/results",
    "docs/results.py",
    "docs/runbook.md",
    "docs/scaling.md",
    "docs/scoping_brief.md",
    "docs/security.md",
    "docs/selection_rationale.md",
    "docs/slo.md",
    "docs/soak.md",
    "docs/training.md",
    "notebooks",
    "pyproject.toml",
    "requirements",
    "src",
    "tests",
    "tests_system",
)
"""Files and folders in plain English, relative to the project; the list grows until it covers the project."""

WORDINGS: Final = {
    r"(tell|tells|told|telling)": "report, send, publish, state, provide; not told: missing, unknown",
    r"asks|asked|asking": "requested, required, queried; what it must reach: target",
    r"ask (for|it|them|the|a|an|again|whether|what|how|which)|(to|who|clients|may|can|must|will) ask": "request, query",
    r"(stand|stands|stood|standing)": "is, is in, is listed; stands in: replaces; stands twice: is a duplicate",
    r"whole(?! numbers?)|wholly|wholeness": "complete; `is_whole`: no known data loss in its windows",
    r"anew": "again",
    r"(judge|judges|judged|judging|judgement|judgements|judgment)": "evaluate, evaluated, evaluation, decide",
    r"unseen": "held out, new",
    r"(call|calls|called|calling) (for|so|them|spikes|a spike|rows|no rows|(about )?\d+)": "flag; require; name",
    r"(rows?|minutes?|seconds?|features?|columns?|volatility) ((that )?(is|are|was|were) )?called": "flagged; named",
    r"(live|be|is|are) (calls|called) (a|an|that|turned|in its)": "flagged, predicted positive; named",
    r"(a|one|each|last|next|second|this|every|first|another) look": "check",
    r"(look|looks|looked|looking) (at|over|after|back|further|whether|once|twice)": "check, read, inspect, cover",
    r"(look|looks|looked|looking) for drift|(is|are|was|were|be) (not |last )?looked": "check for, search",
    r"(let|lets|letting) (it |them )?go": "drop, reject, release",
    r"(set|sets|setting|put|puts|leave|leaves|left|its first one) (it |them )?aside": "rejected, excluded, except",
    r"into service": "promoted",
    r"deeds?|wish|wishes|wished|vigils?|moods?|lanes?|material": "operation; option; idle timer; regime; training data",
    r"caveats?": "warning, limitation",
    r"(a|the|each|its|their|separate|of|per|by|own|one|two) tracks?": "name the thing itself",
    r"Kafka links?|links? to (Kafka|a broker|brokers|the broker)": "client, connection",
    r"(in|own|few|the same|plain|a|so many) words?": "text, message, message fields",
    r"rivals?|traders? (already )?(has|have|had)": "baseline",
    r"(foresee|foresees|foreseen|foresaw)": "predict, predicted",
    r"(come|comes|came|become|becomes|became) of": "outcome, result",
    r"what (is|was) made of": "outcome, result",
    r"rooms?|houses?": "package, project; on a disk: free space",
    r"besides?": "and, next to, compared with, also",
    r"(do|does|did|done|doing|can|could) without|without (\w+ ){1,4}being there": "exclude, need no; if X is missing",
    r"(whoever|whomever|nobody|somebody|anybody|everybody|no one|someone|anyone|everyone)": "name the role",
    r"how far (it|they|this) (goes|go|went|will go)|at night|bad hours?": "capacity; runbook; soak test",
    r"(young|younger|youngest)": "recent, new",
    r"(draw|draws|drawn|drew) (it |them |the \w+ )?(to|towards)": "shrink towards",
    r"(has|have|had|having) (no |a )?part in": "contribute, belong to",
    r"(know|knows|knew|knowing) nothing of": "exclude, be independent of",
    r"stood (its|their) ground|(live|lives|lived) through": "pass the comparison; experience",
    r"(heard|hears)": "received, receives",
    r"(mend|mends|mended|mending)": "repair, fix, correct",
    r"(wild|wilder|wildest)": "volatile, more volatile",
    r"burnt": "the burn rate of an error budget",
    r"in silence": "silently, without an error",
}
"""A pattern per wording, of complete words; a blank in it is any white space. The value is what to write instead."""


class Allowance(NamedTuple):
    """A text that the files matching ``files`` may contain, and the reason."""

    files: str
    text: str
    reason: str


ALLOWED: Final = (
    Allowance("*", "bids and asks", "the two sides of an order book"),
    Allowance("src/volspike/features/schema.py", "feed tells no sizes", "part of the digests that models carry"),
    Allowance("src/volspike/features/schema.py", "ticks telling bid b", "part of the digests that models carry"),
    Allowance("*", "Caveats and recommendations", "the heading of every model card (Mitchell et al., 2019)"),
)

READ_AS_IT_IS: Final = {".html", ".css", ".js", ".yml", ".yaml", ".json", ".toml", ".example", ".api", ".ingestor"}
WITHOUT_SUFFIX: Final = {"Makefile", "run"}
SHELL: Final = {"", "sh", "bash", "sh run", "shell", "console"}

_QUESTION = re.compile(r"(What|How|Whether|Which|Who|Whose|Where|When|Why)\b")
_OPENING = re.compile(r"(What|Which|Who|Whose|Why)\b")
_PROSE = re.compile(r"[A-Za-z]{2,}[,;:]? [a-z]+")
_CODE = re.compile(r"``[^`]*``|`(?:[^`\n]|\n(?!\n))+`")
_ADDRESS = re.compile(r"https?://\S+|\]\([^()\s]*\)")
_FENCE = re.compile(r"^ *(?:```|~~~) *(.*?) *$")
_BLANK = r"[\s#]+"
_COMPILED = tuple(
    (re.compile(rf"(?<![\w-])(?:{pattern.replace(' ', _BLANK)})(?!-?\w)", re.IGNORECASE), instead)
    for pattern, instead in WORDINGS.items()
)


class Text(NamedTuple):
    """A piece of prose and the line of the file on which it begins."""

    line: int
    text: str


class Finding(NamedTuple):
    """A wording that is not plain: where it is, and what to write instead."""

    file: str
    line: int
    wording: str
    instead: str

    def __str__(self) -> str:
        """One line for a terminal that makes the place a link."""
        return f"{self.file}:{self.line}: {self.wording!r}: {self.instead}"


def findings(paths: Sequence[str], root: Path = ROOT) -> list[Finding]:
    """All findings in files and folders, in the order of files and lines."""
    return [finding for path in paths for file in _files(root / path) for finding in check_file(file, root)]


def check_file(file: Path, root: Path = ROOT) -> list[Finding]:
    """The findings of one file."""
    name = file.relative_to(root).as_posix()
    found = [finding for text in _texts(file, name) for finding in check_text(name, text)]
    if file.suffix == ".py":
        found += _openings(name, file.read_text())
    return sorted(found, key=lambda finding: finding.line)


def check_text(name: str, text: Text) -> Iterator[Finding]:
    """The findings of a piece of prose; code, addresses and allowed texts do not count."""
    prose = _ADDRESS.sub(_blank, _CODE.sub(_blank, text.text))
    for allowance in ALLOWED:
        if fnmatch(name, allowance.files):
            prose = prose.replace(allowance.text, " " * len(allowance.text))
    for pattern, instead in _COMPILED:
        for match in pattern.finditer(prose):
            line = text.line + prose.count("\n", 0, match.start())
            yield Finding(name, line, " ".join(match[0].split()), instead)


def _blank(match: re.Match[str]) -> str:
    """As many characters on as many lines, none of which a pattern matches."""
    return re.sub(r"[^\n]", "\0", match[0])


def _files(path: Path) -> Iterator[Path]:
    candidates = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in candidates:
        is_read = file.suffix in READ_AS_IT_IS | {".py", ".md", ".ipynb"} or file.name in WITHOUT_SUFFIX
        if file.is_file() and is_read:
            yield file


def _texts(file: Path, name: str) -> Iterator[Text]:
    source = file.read_text()
    if file.suffix == ".py":
        yield from python_texts(source, has_messages=not name.startswith("tests"))
    elif file.suffix == ".md":
        yield Text(1, _outside_code(source))
    elif file.suffix == ".ipynb":
        yield from _notebook_texts(source)
    else:
        yield Text(1, source)


def python_texts(source: str, *, has_messages: bool) -> Iterator[Text]:
    """Docstrings and comments, and with ``has_messages`` each other string that reads as prose."""
    tree = ast.parse(source)
    for node, docstring in _docstrings(tree):
        yield Text(node.lineno, docstring)
    yield from _comments(source)
    if has_messages:
        known = {id(node) for node, _ in _docstrings(tree)}
        yield from _messages(tree, known)


def _docstrings(tree: ast.AST) -> Iterator[tuple[ast.Constant, str]]:
    """Strings that are statements: docstrings, and those below a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value, node.value.value


def _messages(tree: ast.AST, known: set[int]) -> Iterator[Text]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            known.update(id(part) for part in node.values)
            text = "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in known:
            text = node.value
        else:
            continue
        if _PROSE.search(text):
            yield Text(node.lineno, text)


def _comments(source: str) -> Iterator[Text]:
    """Comments; those on lines that follow each other are one text."""
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start != (block[-1].start[0] + 1, block[-1].start[1]):
            yield Text(block[0].start[0], "\n".join(each.string for each in block))
            block = []
        block.append(token)
    if block:
        yield Text(block[0].start[0], "\n".join(each.string for each in block))


def _outside_code(source: str) -> str:
    """Markdown with code blocks blanked, except the comments of shell blocks; lines keep their numbers."""
    lines, kind = [], None
    for line in source.splitlines():
        fence = _FENCE.match(line)
        if fence is not None:
            kind = fence[1] if kind is None else None
            lines.append("")
        elif kind is None:
            lines.append(line)
        else:
            lines.append(line.partition("# ")[2] if kind in SHELL else "")
    return "\n".join(lines)


def _notebook_texts(source: str) -> Iterator[Text]:
    """The cells of a notebook; the line is the number of the cell."""
    for number, cell in enumerate(json.loads(source)["cells"], 1):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield Text(number, _outside_code(text).replace("\n", " "))
        else:
            for part in python_texts(text, has_messages=True):
                yield Text(number, part.text.replace("\n", " "))


def _openings(name: str, source: str) -> Iterator[Finding]:
    """Docstrings that are a question, or begin as one: of modules, and outside tests of classes and functions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        first = docstring.partition("\n\n")[0]
        line = node.body[0].lineno
        if isinstance(node, ast.Module):
            if _QUESTION.match(first) or first.rstrip().endswith("?"):
                yield Finding(name, line, first.split("\n")[0], "a module docstring says what the module provides")
        elif _OPENING.match(first) and not name.startswith("tests"):
            yield Finding(name, line, first.split("\n")[0], "begin with a verb, or with the thing that is returned")


@pytest.mark.parametrize("path", PATHS)
def test_texts_are_plain_english(path: str) -> None:
    """No file contains a wording of the list, and no module docstring is a question."""
    assert (ROOT / path).exists()
    assert [str(finding) for finding in findings([path])] == []


def test_wordings_are_found_where_people_read_them(tmp_path: Path) -> None:
    """Docstrings, comments over two lines, messages, and Markdown outside code are read."""
    (tmp_path / "a.py").write_text(
        '"""What it does."""\n\nx = "no such thing is told"\n# it has been set\n# aside\n'
        'def f():\n    """Returns\n\n    what ``told`` was told."""\n    raise OSError(f"{x} has been asked for")\n'
    )
    (tmp_path / "b.md").write_text("`told`\n\n```sh\nrun told  # nobody\n```\n[anew](told.md) https://told/asked\n")
    found = findings(["."], tmp_path)
    assert [(each.file, each.line, each.wording) for each in found] == [
        ("a.py", 1, "What it does."),
        ("a.py", 3, "told"),
        ("a.py", 4, "set # aside"),
        ("a.py", 9, "told"),
        ("a.py", 10, "asked"),
        ("b.md", 4, "nobody"),
        ("b.md", 6, "anew"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a whole number of seconds",
        "best bid and best ask, bids and asks",
        "the function is called once and looks the key up",
        "call `frame` for every frame",
        "`is_whole` and ``told``, feature_whole, result=let_go",
        "a standalone process writes to standard error",
        "a hyperlink, links of a page, words of a text, tracks the run in MLflow",
        "no look-ahead",
    ],
)
def test_innocent_texts_pass(text: str) -> None:
    """The same letters in a technical sense are no finding."""
    assert list(check_text("page.md", Text(1, text))) == []


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("rows that stand twice", "stand"),
        ("a row that is called a spike", "called a spike"),
        ("a look for drift", "a look"),
        ("held beside the rule\nthat a trader has", "beside"),
        ("left\naside", "left aside"),
        ("What came of it", "came of"),
    ],
)
def test_unusual_wordings_are_found(text: str, wording: str) -> None:
    """A phrase counts on one line or over two, in upper or lower case."""
    assert wording in [finding.wording for finding in check_text("page.md", Text(1, text))]


def test_allowances_have_reasons_and_are_needed() -> None:
    """Each allowed text contains a wording of the list; an allowance without a use is removed."""
    for allowance in ALLOWED:
        assert allowance.reason
        assert any(pattern.search(allowance.text) for pattern, _ in _COMPILED)


def test_paths_are_sorted_and_do_not_overlap() -> None:
    """Each file is checked once."""
    assert list(PATHS) == sorted(set(PATHS))
    assert not [later for path, later in pairwise(PATHS) if later.startswith(f"{path}/")]


if __name__ == "__main__":
    found = findings(sys.argv[1:] or list(PATHS), Path.cwd() if sys.argv[1:] else ROOT)
    print(*found, f"{len(found)} finding(s)", sep="\n")  # noqa: T201
    sys.exit(bool(found))
