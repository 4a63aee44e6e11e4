"""Which detectors there are, by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final, cast

from volspike.models.detector import Detector


class _Detectors(Mapping[str, type[Detector]]):
    """Name → class. Looking at the names imports nothing; taking a class imports its library."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> type[Detector]:
        module, _, kind = self._places[name].partition(":")
        return cast("type[Detector]", getattr(import_module(module), kind))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


DETECTORS: Final[Mapping[str, type[Detector]]] = _Detectors(
    {
        "baseline": "volspike.models.baseline:Baseline",
        "persistence": "volspike.models.persistence:Persistence",
        "ewma": "volspike.models.ewma:Ewma",
        "har": "volspike.models.har:Har",
        "seasonal": "volspike.models.seasonal:Seasonal",
        "logistic": "volspike.models.logistic:Logistic",
        "random_forest": "volspike.models.random_forest:RandomForest",
        "xgboost": "volspike.models.xgboost:XGBoost",
        "lightgbm": "volspike.models.lightgbm:LightGBM",
        "lstm": "volspike.models.lstm:Lstm",
    }
)
