"""A trial before a model is served: it must score, the same alone and among others, and tell probabilities."""

from __future__ import annotations

from typing import Final

import numpy as np

from volspike.errors import ArtifactCorrupt
from volspike.serving.scorer import Scorer

VALUES: Final = (0.0, 1e-4, 1.0, 100.0)
"""What every feature of a trial row is: the size of nothing, a return, a ratio and a count."""

TOLERANCE: Final = 1e-6


def prove(scorer: Scorer) -> None:
    """Score the trial rows, together and one by one. NaN, which a model may have for values of no market, is no fault.

    Raises:
        ArtifactCorrupt: there is no score at all, one that is no probability, or another alone than among others.
    """
    rows = np.repeat(np.array(VALUES)[:, None], len(scorer.features), axis=1)
    try:
        together = scorer.probability(rows)
        alone = np.array([scorer.probability_of(row) for row in rows.tolist()])
    except Exception as error:  # ONNX Runtime's errors share no other parent
        raise ArtifactCorrupt(f"{scorer.directory}: it fails on trial ({error}); train it anew") from error
    scored = together[~np.isnan(together)]
    is_sound = len(scored) > 0 and bool(np.all((scored >= 0.0) & (scored <= 1.0)))
    if not (is_sound and np.allclose(together, alone, rtol=0.0, atol=TOLERANCE, equal_nan=True)):
        raise ArtifactCorrupt(
            f"{scorer.directory}: on trial it scored {together.tolist()} together and {alone.tolist()} alone, "
            "wanted the same probabilities; train it anew with `volspike train`"
        )
