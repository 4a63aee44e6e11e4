"""Settings of the server: secrets that stay secret, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from volspike.config import Secret, ServingSettings, load_settings
from volspike.errors import UsageError

KEY = "correct-horse-battery"


def settled(flags: dict[str, Any] | None = None, file: Path | None = None, **environ: str) -> ServingSettings:
    return load_settings(ServingSettings, flags or {}, environ, file, "serving")


def test_a_key_is_shown_nowhere() -> None:
    """Neither the settings nor the key itself show it, in whatever form they are put."""
    settings = settled(API_KEY=KEY)
    assert settings.api_key is not None
    assert settings.api_key.reveal() == KEY
    for shown in (repr(settings), str(settings), f"{settings.api_key}", repr([settings.api_key])):
        assert KEY not in shown
    assert settings.api_key == Secret(KEY)
    assert settings.api_key != Secret(KEY[:-1])


def test_a_key_comes_from_file_environment_or_flag(tmp_path: Path) -> None:
    """As every setting: the flag beats the environment, which beats the file."""
    file = tmp_path / "s.toml"
    file.write_text(f'[serving]\napi_key = "{KEY}-of-file"\n')
    for settings, told in (
        (settled(file=file), f"{KEY}-of-file"),
        (settled(file=file, API_KEY=f"{KEY}-of-environment"), f"{KEY}-of-environment"),
        (settled({"api_key": f"{KEY}-of-flag"}, file, API_KEY=KEY), f"{KEY}-of-flag"),
    ):
        assert settings.api_key == Secret(told)


@pytest.mark.parametrize("key", ["", "short", "with a blank inside", "ünvisible-in-ascii", "x" * 513])
def test_a_key_that_cannot_be_one_is_refused_and_not_repeated(key: str) -> None:
    """Too short, too long, or not visible ASCII: the error says what is wanted. An empty one does not mean none."""
    with pytest.raises(UsageError, match="api_key must be 16 to 512 visible ASCII characters") as refused:
        settled(API_KEY=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("MODEL_VARIANT", "tuesday", "variant"),
        ("MODEL_VERSION", "../elsewhere", "version must be the name of a folder"),
        ("RATE_LIMIT", "-1", "rate_limit"),
        ("RATE_LIMIT", "many", "rate_limit"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(variable: str, value: str, told: str) -> None:
    """A variable with a value that is none names the setting."""
    with pytest.raises(UsageError, match=told):
        load_settings(ServingSettings, {}, {variable: value}, None, "serving")
