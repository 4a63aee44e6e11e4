"""The GitHub workflow: its form, and that what it runs exists."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

from tests.docker.compose import LARGEST_API_IMAGE_MB, read
from tests.scripts import script
from volspike.cli.app import COMMANDS, load_command

ROOT: Final = Path(__file__).resolve().parent.parent
FILE: Final = ROOT / ".github/workflows/ci.yml"
JOBS: Final[dict[str, Any]] = read(FILE)["jobs"]
STEPS: Final[list[dict[str, Any]]] = [step for job in JOBS.values() for step in job["steps"]]


def lines() -> list[str]:
    """The lines of all shell steps."""
    return [line.strip() for step in STEPS for line in step.get("run", "").splitlines()]


def supported() -> set[str]:
    """The Python versions of the package's metadata."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        classifiers = tomllib.load(file)["project"]["classifiers"]
    return {name.rpartition(" ")[2] for name in classifiers if re.search(r":: 3\.\d+$", name)}


def combinations(job: str) -> set[tuple[str, str]]:
    """Runner and Python version of each run of a job."""
    matrix = JOBS[job]["strategy"]["matrix"]
    added = {(each["os"], each["python"]) for each in matrix.get("include", [])}
    return set(itertools.product(matrix.get("os", [JOBS[job]["runs-on"]]), matrix["python"])) | added


def test_the_workflow_keeps_the_schema() -> None:
    """The file matches the schema of GitHub workflows."""
    command = [script("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_is_installed_on_every_system_and_version() -> None:
    """The package and the tests run on the Python versions that the metadata states, on three systems."""
    versions, systems = supported(), {"ubuntu-24.04", "macos-15", "windows-2025"}
    assert combinations("install") == set(itertools.product(systems, versions))
    tests = combinations("test") | combinations("test-windows")
    oldest, *_, newest = sorted(versions)
    assert {python for os, python in tests if os == "ubuntu-24.04"} == versions
    assert set(itertools.product(systems, (oldest, newest))) <= tests


def test_jobs_end_and_actions_are_pinned() -> None:
    """Each job has a time limit, and each action a full version."""
    assert all(job["timeout-minutes"] <= 60 for job in JOBS.values())
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", name) for name in used)


def test_commands_and_targets_exist() -> None:
    """Each subcommand has the flags that the workflow uses, each target and each path exists."""
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text()))
    assert {line.split()[1] for line in lines() if line.startswith("make ")} <= targets
    called = [re.search(r"volspike\"? ([a-z-]+)(.*)", line) for line in lines()]
    used = [found for found in called if found is not None and found[1] in COMMANDS]
    assert {found[1] for found in used} >= {"demo", "up", "replay", "train"}
    for found in used:
        known = {flag for param in load_command(found[1]).params for flag in (*param.opts, *param.secondary_opts)}
        assert {word for word in shlex.split(found[2].rstrip("&")) if word.startswith("--")} <= known
    paths = re.findall(r"(?:tests|requirements)[\\/][\w.\\/]+", "\n".join(lines()))
    assert paths
    assert [path for path in paths if not (ROOT / path.replace("\\", "/")).exists()] == []


def test_the_image_of_the_api_has_the_documented_limit() -> None:
    """The job of the images fails above the limit, which the documentation states."""
    assert any(line.endswith(f"-lt {LARGEST_API_IMAGE_MB}000000") for line in lines())
    assert f"{LARGEST_API_IMAGE_MB} MB" in (ROOT / "docs/production.md").read_text()
