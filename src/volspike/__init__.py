"""volspike estimates how likely a market is to have a volatility spike within the next 60 seconds.

As a library (``import volspike as vs``) it has the names of ``__all__``; everything else is private and may change.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volspike.library import (
        Engine,
        Evaluation,
        Gap,
        Model,
        Tape,
        Tick,
        evaluate,
        features,
        labels,
        load_model,
        read_tape,
    )

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "Evaluation",
    "Gap",
    "Model",
    "Tape",
    "Tick",
    "evaluate",
    "features",
    "labels",
    "load_model",
    "read_tape",
]


def __getattr__(name: str) -> Any:
    """A public name; the library is imported when the first one is used, because it takes a second."""
    if name in __all__:
        return getattr(import_module("volspike.library"), name)
    raise AttributeError(f"module 'volspike' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _CallableModule(ModuleType):
    """A module of volspike whose name is also that of a public function, which calls of the module reach."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(import_module("volspike.library"), self.__name__.rpartition(".")[2])(*arguments, **options)


class _Package(ModuleType):
    """``volspike`` itself. Importing ``volspike.features`` replaces the function of that name by the module.

    So the module is made callable, and ``vs.features(...)`` works whatever was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
