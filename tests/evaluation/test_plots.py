"""Pictures are PNGs of readable size, and the same data draw the same picture."""

from __future__ import annotations

import struct

import numpy as np

from volspike.evaluation.plots import feature_importance, pr_curve, roc_curve


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def test_curves_are_pictures() -> None:
    """Both curves come out as PNGs, for scores with many values and with one."""
    random = np.random.default_rng(0)
    y = (random.random(9000) < 0.1).astype(np.int8)
    scores = {"model": random.random(9000) + y, "last 60 s volatility": np.ones(9000)}
    assert size(pr_curve(y, scores, title="t")) == (840, 720)
    assert size(roc_curve(y, scores, title="t")) == (840, 720)


def test_importance_grows_with_its_features() -> None:
    """More features make a taller picture, so that their names stay readable."""
    few = size(feature_importance({"a": 1.0}, title="t"))
    many = size(feature_importance({f"feature_{n}": 1 / 21 for n in range(21)}, title="t"))
    assert many[1] > few[1]


def test_same_data_same_picture() -> None:
    """Nothing of the moment, the machine or an earlier picture is in a picture."""
    first, second = (feature_importance({"a": 0.7, "b": 0.3}, title="t") for _ in range(2))
    assert first == second
