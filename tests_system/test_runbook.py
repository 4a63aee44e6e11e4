"""The runbook: a shell runs all of its commands in order, and each alert has a section."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML
from tests.docs.pages import ROOT, anchors, parse_page
from tests.doctor.servers import open_exchange
from tests.streams.brokers.ports import free_ports

from tests_system.processes import environment

PAGE = ROOT / "docs" / "runbook.md"
TIMEOUT_S = 280
"""On an idle machine the commands take a minute."""
SHELL = """
set -euo pipefail
trap 'for job in $(jobs -p); do kill -KILL $job 2> /dev/null || true; done' EXIT
"""


def test_every_block_of_the_runbook_runs(tmp_path: Path) -> None:
    """In an empty folder, with the simulated exchange instead of Coinbase, no command fails."""
    blocks = parse_page(PAGE)[1]
    assert len(blocks) > 15
    assert {block.kind for block in blocks} == {"sh run"}, "the runbook has a block that this test does not run"
    steps = [line for block in blocks for line in (f"printf '\\n@@ %s\\n' runbook.md:{block.line}", *block.lines)]
    (port,) = free_ports(1)
    programs = tmp_path / "bin"
    programs.mkdir()
    volspike = programs / "volspike"
    volspike.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m volspike "$@"\n')
    volspike.chmod(0o755)
    workspace = tmp_path / "work"
    workspace.mkdir()
    with open_exchange(head_start_s=420, subscribes=3) as exchange:
        variables = environment(
            COINBASE_WS_URL=exchange.url(),
            COINBASE_REST_URL=exchange.url().replace("ws://", "http://").rpartition("/")[0],
            API_PORT=str(port),
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        )
        shell = subprocess.Popen(  # noqa: S603  the runbook's own commands
            ["/bin/bash", "-c", SHELL + "\n".join(steps)],
            cwd=workspace,
            env=variables,
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
    log = workspace / "up.log"
    server_log = log.read_text()[-3000:] if log.exists() else ""
    assert shell.returncode == 0, f"{output[-3000:]}\n{server_log}"
    reached = re.findall(r"^@@ runbook.md:(\d+)$", output, re.MULTILINE)
    assert [int(line) for line in reached] == [block.line for block in blocks]


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
