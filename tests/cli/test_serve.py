"""``volspike serve``: settings that are refused before anything listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import MODEL, USAGE, Run, assert_refused
from volspike.config import ServingSettings


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


def test_a_named_folder_without_a_model_is_refused(tmp_path: Path, volspike: Run) -> None:
    """As by ``up``, with the same exit status, whether the folder is missing or empty."""
    (tmp_path / "empty").mkdir()
    for name in ("nope", "empty"):
        assert_refused(volspike("serve", "--model", name, "--port", "0"), MODEL, f"{name}: no model", "MODEL_PATH")


def test_a_folder_in_the_environment_may_be_filled_later(volspike: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MODEL_PATH the server starts without a model, as with a volume that is still empty."""
    started: list[ServingSettings] = []
    monkeypatch.setenv("MODEL_PATH", "nope")
    monkeypatch.setattr("volspike.api.server.serve", started.append)
    assert volspike("serve", "--port", "0").status == 0
    assert [settings.model for settings in started] == [Path("nope")]
