"""The built sdist and wheel: their metadata, and the program as it runs without a checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from requirements.install import pip_configuration, pip_settings, uv_environment
from tests.docker.compose import BASE_IMAGE_MB, LARGEST_API_IMAGE_MB
from tests.scripts import script

from tests_system.processes import Outcome, Server, run_process, succeeded
from volspike.models import BASELINE_MODEL, DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL

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


@pytest.fixture(scope="module")
def serving(built: Path) -> Path:
    """The folder of the programs of an environment that is made as that of the API's image is."""
    environment_folder = built.parent / "serving"
    succeeded(run_process([sys.executable, "-m", "venv", "--without-pip", str(environment_folder)], built))
    pip = [sys.executable, "-m", "pip", "--python", str(environment_folder), "install", "--no-compile", "--no-deps"]
    succeeded(run_process([*pip, "--requirement", str(ROOT / "requirements" / "api.txt")], built))
    succeeded(run_process([*pip, str(next(built.glob("*.whl")))], built))
    return environment_folder / "bin"


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


@pytest.mark.parametrize(
    "model", [DEFAULT_MODEL, SIMULATED_MODEL, TEN_MODEL, BASELINE_MODEL], ids=lambda path: path.name
)
def test_the_packages_of_the_image_serve_as_all_do(
    model: Path, serving: Path, installed: Path, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """With the packages of ``api.txt`` alone, health, version and predictions are those of a complete installation."""
    few, all_packages = (
        serve(tmp_path, "--model", model, "--port", 0, program=str(programs / "volspike"), PYTHONPATH=None)
        for programs in (serving, installed)
    )
    assert few.get("/health/ready").status == 200
    version = few.get("/version").json
    rows = [
        {name: (0.5 + place % 7) * 10.0**power for place, name in enumerate(version["features"])}
        for power in range(-6, 4)
    ]
    ten = dict.fromkeys(version["companion_features"], 1e-4)
    bodies = [*({"features": row} for row in [*rows, ten]), {"rows": rows}, {"features": {"unknown": 1.0}}]
    changing = r'"(inference_time_ms|timestamp|api_build_date|model_loaded_at|model_path)":[^,}]*'
    answers = [
        [
            re.sub(changing, "", answer.body.decode())
            for answer in (
                server.get("/health"),
                server.get("/version"),
                *(server.post("/predict", json.dumps(body)) for body in bodies),
            )
        ]
        for server in (few, all_packages)
    ]
    assert answers[0] == answers[1]
    assert sum('"probability"' in answer for answer in answers[0]) == len(bodies) - 1


def test_the_packages_of_the_image_fit_into_its_size(serving: Path) -> None:
    """The packages of the API's image with their bytecode are smaller than the limit without the base image."""
    packages = next(serving.parent.glob("lib/python*/site-packages"))
    run_process([str(serving / "python"), "-m", "compileall", "-q", "-j", "0", str(packages)], serving)
    assert not [name for name in ("numba", "llvmlite", "pyarrow", "scipy", "pip") if (packages / name).exists()]
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file())
    assert size / 1e6 < LARGEST_API_IMAGE_MB - BASE_IMAGE_MB


def test_uv_installs_the_wheel_as_a_tool(built: Path, tmp_path: Path) -> None:
    """``uv tool install`` of the wheel; ``volspike up`` writes below the folder in which it is started only."""
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    wheel, versions = str(next(built.glob("*.whl"))), str(ROOT / "requirements" / "base.txt")
    settings = uv_environment(pip_settings(pip_configuration()), os.environ)
    settings |= {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    command = [script("uv"), "tool", "install", "--python", sys.executable, "--constraints", versions, wheel]
    subprocess.run(command, env=settings, capture_output=True, check=True)  # noqa: S603  our own command
    program = str(tmp_path / "bin" / "volspike")
    variables = {"HOME": str(home), "XDG_CACHE_HOME": None, "PYTHONPATH": None}
    server = Server(folder, "--source", "simulator", "--port", "0", command="up", program=program, **variables)
    try:
        assert server.get("/health").json["status"] == "healthy"
        page = server.get("/").body.decode()
        files = re.findall(r'(?:src|href)="((?!https?:)[^"#]+\.(?:js|css|svg))', page)
        assert any(file.endswith(".js") for file in files)
        assert {file: server.get(f"/{file}").status for file in files} == dict.fromkeys(files, 200)
        assert server.stop()[0] == 0
    finally:
        server.close()
    assert sorted(path.name for path in folder.iterdir()) == ["data"]
    assert list(home.iterdir()) == []
