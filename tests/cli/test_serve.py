"""``volspike serve``: settings that are refused before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import USAGE, Run, assert_refused


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[serving]\nspeed = 3\n", ["settings for serving", "unknown field `speed`"]),
        ('[serving]\nport = "http"\n', ["settings for serving", "`$.port`"]),
        ("[serving\n", ["settings file s.toml", "line 1"]),
        (None, ["settings file s.toml", "No such file"]),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused(
    content: str | None, told: list[str], tmp_path: Path, volspike: Run
) -> None:
    """The file or the key, and what is wrong with it, in one line."""
    if content is not None:
        (tmp_path / "s.toml").write_text(content)
    assert_refused(volspike("serve", "--config", "s.toml"), USAGE, *told)


def test_a_log_level_that_is_none_is_refused(volspike: Run) -> None:
    """The error lists the valid levels and the given one."""
    assert_refused(volspike("serve", "--log_level", "loud", "--port", "0"), USAGE, "'loud'", "INFO", "WARNING")
