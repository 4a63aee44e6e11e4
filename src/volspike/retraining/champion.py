"""Which model a challenger has to match: the one in production, or the one that ships for a market of this kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from volspike.errors import UsageError
from volspike.market import nanoseconds
from volspike.models import DEFAULT_MODEL, SIMULATED_MODEL, Artifact
from volspike.training.promotion import in_production


@dataclass(frozen=True, slots=True, eq=False)
class Champion:
    """The model that is served; ``is_own`` where it was put into production, and does not merely come with volspike."""

    artifact: Artifact
    is_own: bool

    @property
    def seen_until(self) -> int:
        """The end (ns UTC) of what it was made from; 0 for the shipped model of a simulated market, which had another
        clock."""
        metadata = self.artifact.metadata
        return 0 if metadata.simulated and not self.is_own else nanoseconds(metadata.data.end)


def champion_for(artifacts: Path, *, simulated: bool) -> Champion:
    """The champion of a real or a simulated market.

    Raises:
        UsageError: the rows are simulated and a model of a real market is in production, which none of them may touch.
        ModelError: what is in production is damaged.
    """
    standing = in_production(artifacts)
    if standing is not None and standing.metadata.simulated == simulated:
        return Champion(Artifact.load(standing.folder), is_own=True)
    if standing is not None and simulated:
        raise UsageError(
            f"{artifacts} serves {standing.metadata.model}, which learned from a real market, and these rows are "
            "simulated: retrain with another --artifacts"
        )
    return Champion(Artifact.load(SIMULATED_MODEL if simulated else DEFAULT_MODEL), is_own=False)
