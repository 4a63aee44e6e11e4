"""``volspike alert-test``: delivered, failed with a reason, and refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command_line import USAGE, Run, assert_refused
from tests.monitoring.listeners import hanging, listening, refusing

# Apprise's mail plugin imports a module that Python 3.13 no longer has
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRETS = ("hunter2", "sesame", "watch")


def test_each_receiver_gets_a_test_message_or_has_a_reason(volspike: Run) -> None:
    """Receivers that answer, hang, refuse and fail: one line each, status 1, and no secret anywhere."""
    with listening(200) as good, listening(500) as broken, hanging() as stuck:
        outcome = volspike("alert-test", "--alert-url", good.url, stuck, refusing(), broken.url, "slack://hunter2")
    assert outcome.out.splitlines() == [
        "receiver 1, json://127.0.0.1: delivered",
        "receiver 2, json://127.0.0.1: failed: it accepted the connection and did not answer in time",
        "receiver 3, json://127.0.0.1: failed: the connection was refused: nothing listens at its host and port",
        "receiver 4, json://127.0.0.1: failed: it answered with HTTP status 500 (Internal Server Error)",
        "receiver 5, slack://…: failed: Apprise does not support this URL, or a part of it is missing",
    ]
    assert outcome.status == 1
    assert not any(secret in outcome.out + outcome.err for secret in SECRETS)
    (message,) = good.received
    assert message["title"] == "TEST: volspike alert-test"
    assert str(message["message"]).startswith("TEST message of volspike")
    assert "No alert is open." in str(message["message"])
    assert len(broken.received) == 1


def test_receivers_come_from_the_environment_and_the_file(tmp_path: Path) -> None:
    """A process uses the option before the environment before the file, and ends with status 0 if all is delivered."""
    with listening(200) as of_option, listening(200) as of_environment, listening(200) as of_file:
        (tmp_path / "s.toml").write_text(f'[alerts]\nreceivers = ["{of_file.url}"]\n')
        calls = [
            (["--config", "s.toml"], ""),
            (["--config", "s.toml"], of_environment.url),
            (["--config", "s.toml", "--alert", of_option.url], of_environment.url),
        ]
        for arguments, urls in calls:
            command = [sys.executable, "-m", "volspike", "alert-test", *arguments]
            done = subprocess.run(  # noqa: S603  our own command
                command,
                cwd=tmp_path,
                env=os.environ | {"ALERT_URLS": urls},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, "receiver 1, json://127.0.0.1: delivered\n"), done.stderr
            assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    assert [len(each.received) for each in (of_option, of_environment, of_file)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ["no receiver of alerts is configured", "--alert-url", "ALERT_URLS", "--config"]),
        (["--alert-url", "hunter2"], ["not an Apprise URL"]),
        (["--config", "missing.toml"], ["settings file missing.toml", "No such file"]),
        (["--timeout", "3"], ["No such option", "--timeout"]),
    ],
)
def test_a_wrong_call_is_refused(
    arguments: list[str], told: list[str], volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2 with one line; a text that is no URL is not repeated, as it may be a secret."""
    monkeypatch.delenv("ALERT_URLS", raising=False)
    outcome = volspike("alert-test", *arguments)
    assert_refused(outcome, USAGE, *told)
    assert "hunter2" not in outcome.err


def test_an_unknown_key_of_the_file_is_refused_without_its_secrets(tmp_path: Path, volspike: Run) -> None:
    """The key is named; a receiver of a wrong type is not shown."""
    (tmp_path / "s.toml").write_text('[alerts]\nreceiver = "json://hunter2"\n')
    assert_refused(
        volspike("alert-test", "--config", "s.toml"), USAGE, "settings for alerts", "unknown field `receiver`"
    )
    (tmp_path / "s.toml").write_text('[alerts]\nreceivers = "json://hunter2"\n')
    outcome = volspike("alert-test", "--config", "s.toml")
    assert_refused(outcome, USAGE, "settings for alerts", "receivers")
    assert "hunter2" not in outcome.err
