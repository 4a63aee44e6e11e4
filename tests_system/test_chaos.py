"""A short chaos run, and proof that its checks notice what they are for; `make chaos` runs 200 faults and 50 kills."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests_system.chaos.report import check_program, check_recording
from tests_system.chaos.run import FAULTS, Plan, Result, run_chaos
from volspike.feeds.simulation.controls import FaultControls
from volspike.tape.names import LEDGER_NAME

PLAN = Plan(seed=12, seconds=40.0, faults=40, kills=10)


def test_every_fault_of_the_exchange_is_drawn() -> None:
    """The plan draws each fault that the exchange offers except a wrong clock, and all before one a second time."""
    offered = {name for name, _ in inspect.getmembers(FaultControls, inspect.isfunction) if not name.startswith("_")}
    assert set(FAULTS) == offered - {"set_clock"}
    names = [name for _, name in PLAN._replace(kills=0, faults=len(FAULTS)).events()]
    assert sorted(names) == sorted(FAULTS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The programs after the run, by name."""
    return {each.program.name: each for each in asyncio.run(run_chaos(tmp_path_factory.mktemp("chaos"), PLAN))}


def test_every_tick_is_on_the_tape_or_in_a_gap(results: dict[str, Result]) -> None:
    """After faults and kills, tapes, ledgers, rows, scores and outcomes agree with the exchange's journal."""
    findings = {name: check_program(result) for name, result in results.items()}
    assert {name: each.summary() for name, each in findings.items() if each.violations} == {}
    total = sum((each.counts for each in findings.values()), Counter[str]())
    assert (total["faults"], total["kills"]) == (PLAN.faults, PLAN.kills)
    for name, each in findings.items():
        for label in ("expected ticks on the tape", "expected ticks lost", "complete rows", "incomplete rows"):
            assert each.counts[label] > 0, (name, label)
        if name.startswith("up"):
            for label in ("probabilities published live", "outcomes stored", "outcomes computed again"):
                assert each.counts[label] > 0, (name, label)


def without_line(file: Path) -> None:
    """Removes a line from the middle of a file."""
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: len(lines) // 2] + lines[len(lines) // 2 + 1 :]))


def with_line_twice(file: Path) -> None:
    """Repeats the last line of a file."""
    text = file.read_bytes()
    file.write_bytes(text + text.splitlines(keepends=True)[-1])


def without_gaps(file: Path) -> None:
    """Removes the gap ledger next to a file."""
    (file.parent / LEDGER_NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "violated"),
    [
        (without_line, {"a lost tick is in a gap of its product with a fitting cause"}),
        (with_line_twice, {"the tape has only what was sent"}),
        (
            without_gaps,
            {
                "a lost tick is in a gap of its product with a fitting cause",
                "a row with a loss in its window is incomplete",
            },
        ),
    ],
)
def test_checks_notice(
    damage: Callable[[Path], None], violated: set[str], results: dict[str, Result], tmp_path: Path
) -> None:
    """A missing tick, a repeated tick and missing ledgers violate the checks that they are for."""
    found: set[str] = set()
    for name, result in results.items():
        program = replace(result.program, folder=tmp_path / "copies" / name)
        shutil.copytree(result.program.folder, program.folder)
        damage(max(program.tape.glob("ticks_BTC*"), key=lambda file: file.stat().st_size))
        found |= set(check_recording(Result(program, result.journal)).violations)
        if found >= violated:
            break
    assert found >= violated
