"""The installer of the environment: what it passes from pip to uv, and when it uses pip instead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from requirements import install

PIN = install.UV.read_text().split()[-1]


class Commands:
    """Records commands instead of running them; those that contain ``failing`` exit with status 2."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.ran: list[list[str]] = []
        self.environments: list[Mapping[str, str] | None] = []

    def __call__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
        """Replaces ``subprocess.call``."""
        self.ran.append(list(command[1:]))
        self.environments.append(env)
        return 2 if self.failing and self.failing in " ".join(command) else 0


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip.conf that is the only configuration of pip."""
    for name in (name for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_"))):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return tmp_path / "pip.conf"


@pytest.fixture
def without_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip without any configuration."""
    monkeypatch.setattr(install, "pip_configuration", lambda: "")


def run(commands: Commands, monkeypatch: pytest.MonkeyPatch, *, uv: str | None = None) -> int:
    """Installs a package in an environment that has ``uv`` in this version, or no uv."""

    def version(_: str) -> str:
        if uv is None:
            raise metadata.PackageNotFoundError
        return uv

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(subprocess, "call", commands)
    return install.main(["--requirement", "base.txt"])


def test_pip_configuration_reaches_uv(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes, certificate, proxy and timeout of pip.conf are passed on; a PIP_ variable overrides the file."""
    pip_conf.write_text(
        "[global]\n"
        "index-url = https://user:secret@mirror.example/simple\n"
        "extra-index-url =\n    https://one.example/simple\n    https://two.example/simple\n"
        "trusted-host = one.example two.example\n"
        "cert = /certificates/global.pem\n"
        "timeout = 20\n"
        "[install]\n"
        "cert = /certificates/install.pem\n"
        "find-links = /wheels /more/wheels\n"
        "no-index = true\n"
        "[download]\n"
        "proxy = http://unused.example:3128\n"
    )
    monkeypatch.setenv("PIP_TIMEOUT", "90")
    commands = Commands()
    assert run(commands, monkeypatch, uv=PIN.removeprefix("uv==")) == 0
    ((*command, first, second),) = commands.ran
    assert command[:4] == ["-m", "uv", "pip", "install"]
    assert command[-1] == "--no-index"
    assert (first, second) == ("--requirement", "base.txt")
    (environment,) = commands.environments
    assert environment is not None
    assert {name: value for name, value in environment.items() if name.startswith(("UV_", "SSL_", "ALL_PROXY"))} == {
        "UV_DEFAULT_INDEX": "https://user:secret@mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "one.example two.example",
        "UV_FIND_LINKS": "/wheels,/more/wheels",
        "UV_HTTP_TIMEOUT": "90",
        "UV_SYSTEM_CERTS": "1",
        "SSL_CERT_FILE": "/certificates/install.pem",
    }
    assert environment["PATH"] == os.environ["PATH"]


def test_variables_of_uv_take_precedence(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set for uv itself is not replaced by pip's configuration."""
    pip_conf.write_text("[global]\nindex-url = https://pip.example/simple\ncert = /pip.pem\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", "/uv.pem")
    commands = Commands()
    run(commands, monkeypatch, uv=PIN.removeprefix("uv=="))
    (environment,) = commands.environments
    assert environment is not None
    assert environment["UV_DEFAULT_INDEX"] == "https://uv.example/simple"
    assert environment["SSL_CERT_FILE"] == "/uv.pem"


@pytest.mark.usefixtures("without_configuration")
@pytest.mark.parametrize("installed", [None, "0.0.1"])
def test_uv_is_installed_by_pip_first(installed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pinned version of uv, pip installs it before it is used."""
    commands = Commands()
    assert run(commands, monkeypatch, uv=installed) == 0
    first, second = commands.ran
    assert first == [*install.PIP[1:], "install", "--quiet", "--requirement", str(install.UV)]
    assert second[:3] == ["-m", "uv", "pip"]


@pytest.mark.usefixtures("without_configuration")
@pytest.mark.parametrize(
    ("failing", "reason"),
    [("uv.txt", f"pip could not install {PIN} (exit status 2)"), ("-m uv", "uv failed (exit status 2)")],
)
def test_pip_is_the_fallback(
    failing: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If uv cannot be installed or fails, pip installs the same packages and the message says why."""
    commands = Commands(failing)
    assert run(commands, monkeypatch) == 0
    assert commands.ran[-1] == [*install.PIP[1:], "install", "--quiet", "--requirement", "base.txt"]
    assert capsys.readouterr().err == f"install: {reason}; using pip instead, which takes about a minute longer\n"


@pytest.mark.usefixtures("without_configuration")
def test_failure_of_both_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is pip's if neither uv nor pip can install the packages."""
    assert run(Commands("base.txt"), monkeypatch) == 2


def test_pinned_uv_understands_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real uv of this environment accepts its arguments and variables: an installed package is left as it is."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is downloaded
    listed = tmp_path / "listed.txt"
    listed.write_text(f"{PIN}\n")
    command = [sys.executable, str(install.__file__), "--requirement", str(listed), "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own program
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
