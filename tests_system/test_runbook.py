"""The commands of the runbook and of the introduction, run block by block in a shell."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from tests.docs.pages import ROOT, Block, anchors, parse_page
from tests.doctor.servers import open_exchange
from tests.streams.brokers.ports import free_ports

from tests_system.processes import environment

PAGE = ROOT / "docs" / "runbook.md"
GETTING_STARTED = ROOT / "docs" / "getting_started.md"
TIMEOUT_S = 280
"""On an idle machine the commands take a minute."""
SHELL = """
set -euo pipefail
trap 'for job in $(jobs -p); do kill -KILL $job 2> /dev/null || true; done' EXIT
"""


def run_blocks(page: Path, blocks: list[Block], folder: Path, **variables: str) -> None:
    """Run the blocks in one shell in ``folder``; every command must succeed and every block must be reached."""
    steps = [line for block in blocks for line in (f"printf '\\n@@ %s\\n' {page.name}:{block.line}", *block.lines)]
    programs = folder / "bin"
    programs.mkdir()
    volspike = programs / "volspike"
    volspike.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m volspike "$@"\n')
    volspike.chmod(0o755)
    workspace = folder / "work"
    workspace.mkdir()
    shell = subprocess.Popen(  # noqa: S603  the page's own commands
        ["/bin/bash", "-c", SHELL + "\n".join(steps)],
        cwd=workspace,
        env=environment(**variables, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        output, _ = shell.communicate()
    logs = "\n".join(log.read_text()[-3000:] for log in workspace.glob("*.log"))
    assert shell.returncode == 0, f"{output[-3000:]}\n{logs}"
    reached = re.findall(rf"^@@ {page.name}:(\d+)$", output, re.MULTILINE)
    assert [int(line) for line in reached] == [block.line for block in blocks]


def test_every_block_of_the_runbook_runs(tmp_path: Path) -> None:
    """In an empty folder, with the simulated exchange in place of Coinbase, no command fails."""
    blocks = parse_page(PAGE)[1]
    assert len(blocks) > 15
    assert {block.kind for block in blocks} == {"sh run"}, "every block of the runbook must be one that this test runs"
    (port,) = free_ports(1)
    with open_exchange(head_start_s=420, subscribes=3) as exchange:
        run_blocks(
            PAGE,
            blocks,
            tmp_path,
            COINBASE_WS_URL=exchange.url(),
            COINBASE_REST_URL=exchange.url().replace("ws://", "http://").rpartition("/")[0],
            API_PORT=str(port),
        )


def test_getting_started_runs(tmp_path: Path) -> None:
    """The introduction's commands run from the simulated recording to the served probability."""
    (port,) = free_ports(1)
    blocks = [
        replace(block, lines=tuple(line.replace("8000", str(port)) for line in block.lines))
        for block in parse_page(GETTING_STARTED)[1]
        if block.kind == "sh run"
    ]
    assert len(blocks) > 5
    run_blocks(GETTING_STARTED, blocks, tmp_path)


def test_each_alert_has_its_section() -> None:
    """The ``runbook_url`` of each alert is a heading of the runbook, and each such heading has an alert."""
    rules = YAML(typ="safe").load(ROOT / "docker" / "prometheus" / "alerts.yml")
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {
        f"docs/runbook.md#{rule['alert'].lower()}" for rule in alerts
    }
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts]
    assert {rule["alert"].lower() for rule in alerts} <= anchors(PAGE)
