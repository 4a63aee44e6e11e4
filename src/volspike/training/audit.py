"""How much of a score the protocol makes: one model, two protocols, on the data and on data that tells nothing."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from volspike.datasets import load_dataset
from volspike.training.audit_report import Audit
from volspike.training.audit_request import PROTOCOLS, AuditRequest
from volspike.training.audit_worlds import every_nth_second, null_like, worlds
from volspike.training.protocol_score import protocol_score

OnStep = Callable[[str], None]


def audit(request: AuditRequest, on_step: OnStep) -> Audit:
    """Scores the model under both protocols on each of ``WORLDS``; ``on_step`` is told what begins.

    The final block of walk_forward, which no choice may look at, is not looked at here either.

    Raises:
        UsageError: no such model, or too few rows asked for.
        UnreadableFile: the feature file is none, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a column asked for is not in the file, or the model finds none that it can do with.
    """
    request.check()
    on_step("reading")
    dataset = load_dataset(request.features)
    step = ceil(len(dataset) / request.rows)
    yours = every_nth_second(dataset, step)
    on_step("a market that nobody can foresee")
    null = null_like(dataset, request)
    del dataset
    scores = {}
    for data, rows in worlds(yours, null, request.seed):
        for protocol in PROTOCOLS:
            on_step(f"{data}, {protocol}")
            scores[data, protocol] = protocol_score(rows, request.training(protocol))
    return Audit(
        request=request,
        rows=len(yours),
        step=step,
        null_rows=len(null),
        simulated=yours.facts.simulated,
        scores=scores,
    )
