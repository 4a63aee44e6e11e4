"""Properties of the Dockerfiles, checked without an engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.compose import DOCKER, DOCKERFILES
from tests.scripts import script
from volspike.cli.app import load_command
from volspike.models import DEFAULT_MODEL

ROOT = DOCKER.parent
each = pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)


@each
def test_hadolint_finds_nothing(file: Path) -> None:
    """hadolint reports no problem."""
    done = subprocess.run([script("hadolint"), str(file)], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_one_pinned_slim_python() -> None:
    """All stages of all images use the same full Python version, which volspike supports."""
    bases = {base for file in DOCKERFILES for base in re.findall(r"(?m)^FROM (\S+)", file.read_text())}
    assert len(bases) == 1
    version = re.fullmatch(r"python:3\.(\d+)\.\d+-slim-[a-z]+", bases.pop())
    assert version is not None
    supported = (ROOT / "pyproject.toml").read_text()
    assert f'"Programming Language :: Python :: 3.{version[1]}"' in supported
    for file in DOCKERFILES:
        assert set(re.findall(r"/lib/python3\.(\d+)/", file.read_text())) == {version[1]}


@each
def test_images_are_watched_and_are_not_root(file: Path) -> None:
    """The last stage has a health check and a numeric user other than root."""
    last = _instructions(file)[_last_from(file) :]
    users = [words for name, words in last if name == "USER"]
    assert users == ["10001:10001"]
    assert [name for name, _ in last].index("USER") > [name for name, _ in last].index("COPY")
    assert sum(name == "HEALTHCHECK" for name, _ in last) == 1


@each
def test_images_are_built_of_exact_versions(file: Path) -> None:
    """Packages are installed from files of exact versions, and no file contains an index address."""
    installed = re.findall(r"pip install ([^&\\\n]*)", file.read_text())
    listed = [name for words in installed for name in re.findall(r"--requirement (\S+)", words)]
    assert listed[0] == "requirements/build.txt"
    for name in listed:
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line) for line in lines), name
    others = [words for words in installed if "--requirement" not in words]
    assert others == ["--no-compile --no-deps wheel/*.whl "]
    assert "http" not in re.sub(r"http://127\.0\.0\.1\S*", "", file.read_text())


def test_images_install_one_wheel() -> None:
    """The stage that builds the wheel is the same in all Dockerfiles; the sources reach an image through it alone."""
    stages = [re.split(r"(?m)^(?=FROM )", file.read_text())[1:] for file in DOCKERFILES]
    assert len({wheel for wheel, *_ in stages}) == 1
    for wheel, build, last in stages:
        assert "COPY src src" in wheel
        assert "COPY --from=wheel /wheel wheel" in build
        assert "--without-pip" in build
        assert not re.search(r"COPY (?!--from|requirements)", build + last)


def test_the_tools_that_build_the_wheel_have_their_usual_versions() -> None:
    """``requirements/build.txt`` is a subset of ``base.txt`` and ``dev.txt``."""
    assert _pins("build") < _pins("base") | _pins("dev")


def test_kernel_and_bytecode_are_made_at_build() -> None:
    """The ingestor's kernel is compiled for any processor, into a cache in the image that the user can write."""
    (file,) = [file for file in DOCKERFILES if file.suffix == ".ingestor"]
    text = file.read_text()
    *_, build, last = text.split("\nFROM ")
    assert build.index("-m compileall") < build.index("compile_kernel()")
    for stage in (build, last):
        assert {"NUMBA_CPU_NAME=generic", "NUMBA_CACHE_DIR=/var/cache/volspike"} <= set(stage.split())
    assert "COPY --from=build --chown=10001:10001 /var/cache/volspike /var/cache/volspike" in last
    (volumes,) = [words for name, words in _instructions(file) if name == "VOLUME"]
    assert "/var/cache/volspike" in volumes


@each
def test_commands_are_volspikes(file: Path) -> None:
    """The default command of an image is a subcommand of volspike with existing flags."""
    command = [words for name, words in _instructions(file) if name == "CMD"]
    program, name, *rest = json.loads(command[-1])
    assert program == "volspike"
    known = {flag for param in load_command(name).params for flag in (*param.opts, *param.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= known


def test_context_is_what_the_images_copy() -> None:
    """The build context contains only the files that a Dockerfile copies: no secrets and no data."""
    first, *let_in = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] in {"*", "!"}]
    assert first == "*"
    copied = {
        word.split("/")[0]
        for file in DOCKERFILES
        for name, words in _instructions(file)
        if name == "COPY" and "--from" not in words
        for word in words.split()[:-1]
    }
    assert {line[1:] for line in let_in if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_apis_versions_are_those_of_the_base() -> None:
    """``requirements/api.txt`` is a subset of ``base.txt``."""
    assert _pins("api") < _pins("base")


def test_the_api_needs_no_more_than_its_file_names() -> None:
    """Loading and serving a model imports only packages of ``requirements/api.txt``."""
    names = {line.split("==")[0] for line in _pins("api")}
    found = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-W", "ignore", "-c", SERVED, str(DEFAULT_MODEL), *sorted(names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")


# Refuses every package that the image would not have, and serves.
SERVED = """
import asyncio, importlib.metadata as metadata, re, sys
model, *allowed = sys.argv[1:]
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
known = {plain(name) for name in allowed} | {"volspike"}
absent = {top for top, owners in metadata.packages_distributions().items() if not known & set(map(plain, owners))}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"the image has no {name}", name=name)

sys.meta_path.insert(0, Absent())
import volspike.cli.app
from pathlib import Path
from volspike.config import ServingSettings
from volspike.api.app import Service, create_app
from volspike.api.server import server_config
from volspike.logs import configure_logs
from volspike.models import Artifact
service = Service(ServingSettings(model=Path(model)), Artifact.load)
configure_logs("ERROR")
server_config(create_app(service.settings), service.settings).load()
service.start()
sys.exit(service.predictor is None and service.reason)
"""


def _pins(name: str) -> set[str]:
    lines = (ROOT / f"requirements/{name}.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def _instructions(file: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, on one line."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#")))
    found = [re.split(r"\s+", line.strip(), maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, words) for name, words in found]


def _last_from(file: Path) -> int:
    return max(place for place, (name, _) in enumerate(_instructions(file)) if name == "FROM")
