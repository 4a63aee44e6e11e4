"""``python -m tests_system.chaos``: a chaos run and its report."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests_system.chaos.report import MARKER, check_all, page
from tests_system.chaos.run import Plan, run_chaos
from tests_system.pages import write_section


def main() -> None:
    """Run the plan, print the report, and fail if a check was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests_system.chaos", description="Chaos run with ground truth.")
    parser.add_argument("--seed", type=int, default=12, help="seed of the market, the faults and the kills")
    parser.add_argument("--minutes", type=float, default=25.0, help="length of the run, in real time")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="keep the tapes, ledgers and logs in this new folder")
    parser.add_argument("--write", type=Path, help="write the section into this page")
    options = parser.parse_args()
    plan = Plan(options.seed, 60.0 * options.minutes, options.faults, options.kills)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.folder is None else options.folder
        folder.mkdir(parents=True, exist_ok=True)
        results = asyncio.run(run_chaos(folder, plan))
        findings = check_all(results)
    text = page(plan, findings)
    print(text)  # noqa: T201  a command
    if options.write is not None:
        write_section(options.write, MARKER, text)
    violated = "\n".join(f"{name}: {each.summary()}" for name, each in findings.items() if each.violations)
    if violated:
        raise SystemExit(violated)


if __name__ == "__main__":
    main()
