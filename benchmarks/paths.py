"""Number of files and functions that a frame, a request and a training run pass: a measure of readability.

``python -m benchmarks.paths`` counts them with a profile hook. Only calls into the package count; imports do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import httpx

import volspike
from benchmarks.figures import Figure
from benchmarks.live import HISTORY_S, PAIRS, event_of, pipeline_of, take_all, walk
from benchmarks.market import START
from volspike.api.app import create_app
from volspike.cli.app import main as volspike_command
from volspike.config import ServingSettings
from volspike.market import SECOND_NS
from volspike.models import TEN_FEATURES, TEN_MODEL
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

PACKAGE: Final = str(Path(volspike.__file__).parent)
NOT_FUNCTIONS: Final = frozenset({"<module>", "<lambda>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>"})
CLASS_BODY: Final = "__qualname__"


@dataclass
class Trail:
    """The functions that were called, in the order of their first call, and how often the file changed in between."""

    functions: dict[tuple[str, str], None] = field(default_factory=dict)
    changes: int = 0
    _last: str = ""

    def hook(self, frame: FrameType, event: str, _: object) -> None:
        """Counts a call if it enters a function of the package."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or not is_function(code):
            return
        self.functions[code.co_filename, code.co_qualname] = None
        self.changes += code.co_filename != self._last
        self._last = code.co_filename

    @property
    def files(self) -> set[str]:
        """The files that hold the functions."""
        return {file for file, _ in self.functions}


def is_function(code: CodeType) -> bool:
    """Whether code belongs to a function or method, not to a module, a class body or a comprehension."""
    return code.co_name not in NOT_FUNCTIONS and CLASS_BODY not in code.co_names


def trail_of(call: Callable[[], Any]) -> Trail:
    """The trail of one call, in this thread and the threads that it starts."""
    path = Trail()
    threading.setprofile(path.hook)
    sys.setprofile(path.hook)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return path


def frame_path() -> Trail:
    """One ticker frame, from its bytes to its score, tape line and outcome, with all windows warm."""
    with tempfile.TemporaryDirectory() as folder:
        recorder, outcomes = Recorder(Path(folder), simulated=True), OutcomeStore(Path(folder) / "outcomes.sqlite")
        pipeline = pipeline_of(PAIRS[:1], recorder=recorder, outcomes=outcomes)
        take_all(pipeline, walk(PAIRS[:1], 4, 4 * HISTORY_S, START - HISTORY_S * SECOND_NS))
        (sent,) = walk(PAIRS[:1], 1, 1, START)
        path = trail_of(lambda: pipeline.take(event_of(sent)))
        recorder.close()
        outcomes.close()
    return path


def predict_path() -> Trail:
    """One ``/predict`` request of the ten features, from the ASGI application to its answer."""
    return asyncio.run(_predict_path())


async def _predict_path() -> Trail:
    app = create_app(ServingSettings(model=TEN_MODEL))
    body = {"features": dict.fromkeys(TEN_FEATURES, 0.5)}
    path = Trail()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as c,
    ):
        (await c.post("/predict", json=body)).raise_for_status()
        sys.setprofile(path.hook)
        try:
            await c.post("/predict", json=body)
        finally:
            sys.setprofile(None)
    return path


def training_path() -> Trail:
    """``volspike train`` of one model on a day of a simulated market."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        features, artifacts = f"{folder}/features.parquet", f"{folder}/artifacts"
        run_command("simulate", "--minutes", "360", "--out", f"{folder}/tape.ndjson")
        run_command("replay", "--raw", f"{folder}/tape.ndjson", "--every", "1s", "--add-labels", "--out", features)
        train = ("train", "--features", features, "--models", "har", "--fold-by", "rows", "--artifacts", artifacts)
        return trail_of(lambda: run_command(*train))


def run_command(*arguments: str) -> None:
    """``volspike`` with arguments, in this process.

    Raises:
        RuntimeError: it failed.
    """
    before, sys.argv = sys.argv, ["volspike", *arguments]
    try:
        volspike_command()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"volspike {' '.join(arguments)} ended with status {end.code}") from end
    finally:
        sys.argv = before


def main() -> list[Figure]:
    """Files, functions and changes of file for each path, next to the orientation values of the design."""
    figures = []
    for name, path, most in (
        ("a ticker frame, bytes to score", frame_path(), 15),
        ("a `/predict` request", predict_path(), 6),
        ("a training run of one model", training_path(), 28),
    ):
        files = len(path.files)
        beside = f"{len(path.functions)} functions, {path.changes} changes of file"
        figures.append(Figure(f"{name}: files", str(files), f"about {most}", files <= most, beside))
    return figures


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
