"""The built sdist and wheel: their metadata, and the program as it runs without a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests_system.processes import Outcome, Server, run_process, succeeded

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, built from the tracked files only."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    out = folder / "dist"
    succeeded(run_process([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)], folder))
    return out


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The folder of the programs of an empty environment in which only the wheel and its dependencies are installed."""
    environment_folder = built.parent / "environment"
    succeeded(run_process([sys.executable, "-m", "venv", str(environment_folder)], built))
    programs = environment_folder / "bin"
    wheel = next(built.glob("*.whl"))
    base = ["--requirement", str(ROOT / "requirements" / "base.txt")]
    install = [str(programs / "python"), str(ROOT / "requirements" / "install.py")]
    succeeded(run_process([*install, *base, str(wheel)], built))
    return programs


def run(program: Path, folder: Path, *arguments: str) -> Outcome:
    """The outcome of an installed program that has succeeded; it does not see this checkout."""
    return succeeded(run_process([str(program), *arguments], folder, timeout=240, PYTHONPATH=None))


def test_packages_pass_the_check_of_the_index(built: Path) -> None:
    """``twine check --strict``: the description renders, and the metadata is complete."""
    packages = [str(path) for path in built.iterdir()]
    assert len(packages) == 2
    succeeded(run_process([sys.executable, "-m", "twine", "check", "--strict", *packages], built))


def test_the_wheel_has_what_serving_needs_and_nothing_else(built: Path) -> None:
    """Models, the dashboard and the type marker are in it; tests, data and notebooks are not."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    for needed in ("py.typed", "models/default/model.onnx", "models/ten/metadata.json", "live/static/dashboard.html"):
        assert f"volspike/{needed}" in names
    assert not [name for name in names if not name.startswith(("volspike/", "volspike-"))]
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        assert any(name.endswith("/src/volspike/py.typed") for name in sdist.getnames())


def test_the_installed_program_serves_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    """``volspike up`` in an empty folder shows the simulated market with the shipped model."""
    assert run(installed / "volspike", tmp_path, "--version").out.strip()
    program = str(installed / "volspike")
    server = Server(tmp_path, "--source", "simulator", "--port", "0", command="up", program=program, PYTHONPATH=None)
    try:
        assert server.get("/health/ready").status == 200
        assert b"volspike" in server.get("/").body
        assert server.get("/health").json["source"]["simulated"]
        assert server.stop()[0] == 0
    finally:
        server.close()


def test_the_demo_runs_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    """``volspike demo`` simulates a market, trains, serves and predicts in an empty folder."""
    assert "probability" in run(installed / "volspike", tmp_path, "demo", "--once", "--port", "0").out


def test_the_library_works_without_the_optional_packages(installed: Path, tmp_path: Path) -> None:
    """Features of a recorded market with Arrow alone: neither polars nor pandas is installed."""
    run(installed / "volspike", tmp_path, "simulate", "--minutes", "15", "--out", "t.ndjson")
    code = "import volspike as vs; print(vs.features(vs.read_tape('t.ndjson')).num_rows)"
    assert int(run(installed / "python", tmp_path, "-c", code).out) > 800
