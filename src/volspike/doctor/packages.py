"""Versions: Python, volspike, what it runs on, and which extras are there."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from packaging.requirements import Requirement

import volspike
from volspike.doctor.finding import Fact, Finding, Severity

PACKAGE: Final = "volspike"
KEY_PACKAGES: Final = ("numpy", "numba", "pyarrow", "onnxruntime", "scikit-learn", "fastapi", "websockets")
"""Those whose versions are told by name; all are held against their ranges."""

_PURPOSES: Final = {
    "kafka": "Kafka",
    "tracking": "MLflow",
    "monitor": "drift reports",
    "deep": "the LSTM",
    "notebook": "the notebook",
    "ray": "replay on Ray",
    "dev": "tests and lint",
}


def look_at_packages() -> list[Finding]:
    """Whether what is installed is what the package declares, and which of its extras are complete."""
    declared = [Requirement(text) for text in requires(PACKAGE) or ()]
    base = [each for each in declared if not _extra_of(each) and (each.marker is None or each.marker.evaluate())]
    return [_base(base), _extras(declared)]


def _base(declared: list[Requirement]) -> Finding:
    facts: dict[str, Fact] = {"python": platform.python_version(), "volspike": volspike.__version__}
    facts |= {name: installed(name) for name in KEY_PACKAGES}
    told = [f"Python {facts['python']}", f"volspike {facts['volspike']}"]
    told += [f"{name} {facts[name] or 'absent'}" for name in KEY_PACKAGES]
    wrong = [text for each in declared if (text := misfit(each))]
    if wrong:
        remedy = "install what it was tested with: pip install -r requirements/base.txt"
        found = f"not as declared: {', '.join(wrong)}"
        return Finding(check="versions", severity=Severity.BAD, found=found, remedy=remedy, facts=facts)
    return Finding(check="versions", severity=Severity.FINE, found=", ".join(told), facts=facts)


def _extras(declared: list[Requirement]) -> Finding:
    """An extra with nothing installed is a choice; one that is there in part does not work."""
    there, absent, broken = [], [], []
    for extra in extras_of(declared):
        wanted = [each for each in declared if _extra_of(each) == extra and each.name != PACKAGE]
        misfits = [text for each in wanted if (text := misfit(each))]
        if not misfits:
            there.append(extra)
        elif all(installed(each.name) is None for each in wanted):
            absent.append(extra)
        else:
            broken.append(f"[{extra}] {', '.join(misfits)}")
    facts: dict[str, Fact] = {"installed": " ".join(there), "absent": " ".join(absent)}
    told = f"installed: {_listed(there)}; not installed: {_listed(absent)}"
    if broken:
        found = f"{told}; in part: {'; '.join(broken)}"
        remedy = "complete what you use, as in pip install 'volspike[kafka]'"
        return Finding(check="extras", severity=Severity.NOTE, found=found, remedy=remedy, facts=facts)
    return Finding(check="extras", severity=Severity.FINE, found=told, facts=facts)


def extras_of(declared: list[Requirement]) -> list[str]:
    """The extras that bring packages of their own, each once, in the order in which they are declared."""
    names = (_extra_of(each) for each in declared if each.name != PACKAGE)
    return list(dict.fromkeys(name for name in names if name))


def misfit(wanted: Requirement) -> str:
    """How what is installed differs from what is wanted; empty where it does not."""
    there = installed(wanted.name)
    if there is None:
        return f"{wanted.name} absent, {wanted.specifier or 'any version'} wanted"
    if not wanted.specifier.contains(there, prereleases=True):
        return f"{wanted.name} {there}, {wanted.specifier} wanted"
    return ""


def installed(name: str) -> str | None:
    """The version that is installed of a package; None where it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra_of(each: Requirement) -> str:
    """The extra that a requirement belongs to; empty for the base."""
    if each.marker is None or each.marker.evaluate({"extra": ""}):
        return ""
    return next((extra for extra in _named(each) if each.marker.evaluate({"extra": extra})), "")


def _named(each: Requirement) -> list[str]:
    """What a marker compares ``extra`` with."""
    return [word.strip("'\"") for word in str(each.marker).split() if word[:1] in {"'", '"'}]


def _listed(extras: list[str]) -> str:
    return ", ".join(f"{extra} ({_PURPOSES[extra]})" if extra in _PURPOSES else extra for extra in extras) or "none"
