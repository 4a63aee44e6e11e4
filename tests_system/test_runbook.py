"""Every block of commands in the runbook, run by a shell from the first to the last, as somebody at night would."""

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
ENDED_WITHIN_S = 280
"""A machine that is busy otherwise takes its time; alone it is a minute."""
SHELL = """
set -euo pipefail
trap 'for job in $(jobs -p); do kill -KILL $job 2> /dev/null || true; done' EXIT
"""


def test_every_block_of_the_runbook_runs(tmp_path: Path) -> None:
    """In an empty folder, with the simulated exchange in Coinbase's place, no command fails."""
    blocks = parse_page(PAGE)[1]
    assert len(blocks) > 15
    assert {block.kind for block in blocks} == {"sh run"}, "a block that no test runs is not to stand in the runbook"
    steps = [line for block in blocks for line in (f"printf '\\n@@ %s\\n' runbook.md:{block.line}", *block.lines)]
    (port,) = free_ports(1)
    programs = tmp_path / "bin"
    programs.mkdir()
    volspike = programs / "volspike"
    volspike.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m volspike "$@"\n')
    volspike.chmod(0o755)
    place = tmp_path / "work"
    place.mkdir()
    with open_exchange(head_start_s=420, subscribes=3) as exchange:
        variables = environment(
            COINBASE_WS_URL=exchange.url(),
            COINBASE_REST_URL=exchange.url().replace("ws://", "http://").rpartition("/")[0],
            API_PORT=str(port),
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        )
        shell = subprocess.Popen(  # noqa: S603  the runbook's own commands
            ["/bin/bash", "-c", SHELL + "\n".join(steps)],
            cwd=place,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = shell.communicate(timeout=ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            said, _ = shell.communicate()
    log = place / "up.log"
    told_by_server = log.read_text()[-3000:] if log.exists() else ""
    assert shell.returncode == 0, f"{said[-3000:]}\n{told_by_server}"
    reached = re.findall(r"^@@ runbook.md:(\d+)$", said, re.MULTILINE)
    assert [int(line) for line in reached] == [block.line for block in blocks]


def test_each_alert_has_its_section() -> None:
    """What an alert's ``runbook_url`` names is a heading of the runbook, and no heading of an alert is left over."""
    rules = YAML(typ="safe").load(ROOT / "docker" / "prometheus" / "alerts.yml")
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    assert {rule["annotations"]["runbook_url"] for rule in alerts} == {
        f"docs/runbook.md#{rule['alert'].lower()}" for rule in alerts
    }
    headings = re.findall(r"^### (\w+)$", PAGE.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts]
    assert {rule["alert"].lower() for rule in alerts} <= anchors(PAGE)
