"""Install packages into this environment with uv, configured the way pip is; with pip if uv does not work here.

Takes the arguments of ``pip install`` that uv understands as well::

    .venv/bin/python requirements/install.py --requirement requirements/base.txt

uv reads neither pip.conf nor the PIP_* variables. Indexes, certificates, proxy and timeout are therefore read with
``pip config list`` and handed to uv in the environment of that one command; nothing is written to a file. Variables
that uv reads itself (UV_*, SSL_CERT_FILE, HTTPS_PROXY) take precedence. Uses the standard library only.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

UV = Path(__file__).with_name("uv.txt")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
SECTIONS = ("global", "install", ":env:")
"""Sections of pip's configuration that ``pip install`` reads; a later one overrides an earlier one."""
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
"""The environment variable of uv for each setting of pip that decides where packages come from."""
SEPARATORS = {"UV_INDEX": " ", "UV_FIND_LINKS": ",", "UV_INSECURE_HOST": " "}
"""What separates the values of a setting that has several; pip separates them by whitespace."""


def main(arguments: Sequence[str]) -> int:
    """Installs ``arguments`` and returns the exit status of the installer that was used last."""
    problem = _install_uv() or _install_with_uv(arguments)
    if not problem:
        return 0
    print(f"install: {problem}; using pip instead, which takes about a minute longer", file=sys.stderr)
    return subprocess.call([*PIP, "install", "--quiet", *arguments])


def pip_settings(listing: str) -> dict[str, str]:
    """The settings that apply to ``pip install``, from the output of ``pip config list``.

    >>> pip_settings("global.timeout='60'\\n:env:.timeout='180'\\ndownload.no-deps='1'")
    {'timeout': '180'}
    """
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if section in found:
            found[section][key] = str(ast.literal_eval(value))
    return {key: value for section in SECTIONS for key, value in found[section].items()}


def uv_environment(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` with the variables that make uv behave as pip does under ``settings``.

    >>> uv_environment({"index-url": "https://mirror.example/simple"}, {"UV_SYSTEM_CERTS": "0"})
    {'UV_DEFAULT_INDEX': 'https://mirror.example/simple', 'UV_SYSTEM_CERTS': '0'}
    """
    passed_on = {"UV_SYSTEM_CERTS": "1"}  # pip trusts the system's certificates, uv by default only its own
    for key, variable in VARIABLES.items():
        if values := settings.get(key, "").split():
            passed_on[variable] = SEPARATORS.get(variable, " ").join(values)
    if "UV_INDEX" in passed_on:
        passed_on["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip takes a version from any of its indexes
    return {**passed_on, **environment}


def _install_uv() -> str:
    """Installs the pinned uv if it is not there; returns what went wrong, or nothing."""
    pin = UV.read_text().split()[-1]
    try:
        if f"uv=={metadata.version('uv')}" == pin:
            return ""
    except metadata.PackageNotFoundError:
        pass
    status = subprocess.call([*PIP, "install", "--quiet", "--requirement", str(UV)])
    return f"pip could not install {pin} (exit status {status})" if status else ""


def _install_with_uv(arguments: Sequence[str]) -> str:
    """Installs ``arguments`` with uv; returns what went wrong, or nothing."""
    settings = pip_settings(pip_configuration())
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    if settings.get("no-index", "0").lower() in {"1", "true", "yes", "on"}:
        command.append("--no-index")
    status = subprocess.call([*command, *arguments], env=uv_environment(settings, os.environ))
    return f"uv failed (exit status {status})" if status else ""


def pip_configuration() -> str:
    """The output of ``pip config list``."""
    return subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True, check=False).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
