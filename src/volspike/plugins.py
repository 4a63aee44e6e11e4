"""Plug-ins: entry points by which installed distributions add venues, models, features and alert receivers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from volspike.errors import UsageError

VENUES: Final = "volspike.venues"
MODELS: Final = "volspike.models"
FEATURES: Final = "volspike.features"
ALERTS: Final = "volspike.alerts"

GROUPS: Final[Mapping[str, str]] = MappingProxyType(
    {VENUES: "venue", MODELS: "model", FEATURES: "features", ALERTS: "alert receiver"}
)
"""Group of entry points → what an entry of it adds."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point of an installed distribution."""

    entry: EntryPoint

    @property
    def name(self) -> str:
        """The name by which options and files refer to it."""
        return self.entry.name

    @property
    def distribution(self) -> str:
        """The name of the distribution that it is part of."""
        return "an unknown distribution" if self.entry.dist is None else self.entry.dist.name

    @property
    def version(self) -> str:
        """The version of the distribution; "" if it is unknown."""
        return "" if self.entry.dist is None else self.entry.dist.version

    @property
    def origin(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def place(self) -> str:
        """The entry point and its distribution, for messages."""
        return f"the entry point {self.name} = {self.entry.value} of {self.distribution}"

    def load(self) -> Any:
        """The object that the entry point names.

        Raises:
            UsageError: it cannot be imported; the message names the distribution.
        """
        try:
            return self.entry.load()
        except Exception as error:  # other people's code may raise anything
            raise UsageError(f"{self.place} cannot be imported: {type(error).__name__}: {error}") from error


@cache
def installed(group: str) -> tuple[Plugin, ...]:
    """The plug-ins of a group by name; nothing is imported."""
    found = [Plugin(entry) for entry in entry_points(group=group)]
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.distribution)))


def find_plugin(group: str, name: str) -> Plugin | None:
    """The plug-in of this name; None if no distribution has it.

    Raises:
        UsageError: several distributions have it.
    """
    found = [plugin for plugin in installed(group) if plugin.name == name]
    if len(found) > 1:
        origins = ", ".join(plugin.distribution for plugin in found)
        raise UsageError(f"several distributions add {GROUPS[group]} {name}: {origins}; uninstall all but one")
    return found[0] if found else None


def describe_names(group: str, built_in: Iterable[str] = ()) -> list[str]:
    """The built-in names, and those of plug-ins with their distributions, for messages."""
    return [*built_in, *(f"{plugin.name} (of {plugin.origin})" for plugin in installed(group))]
