"""The mode of a source: live, replay or simulated. It is shown wherever the numbers of the source are shown."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """The origin of a source's ticks."""

    LIVE = "live"
    """A real market, as it happens."""
    REPLAY = "replay"
    """A recorded tape of a real market."""
    SIMULATED = "simulated"
    """A simulated market, as it happens."""
    SIMULATED_REPLAY = "simulated replay"
    """A recorded tape of a simulated market."""

    @classmethod
    def of(cls, *, simulated: bool, replayed: bool = False) -> Mode:
        """The mode of a source with these two properties."""
        if replayed:
            return cls.SIMULATED_REPLAY if simulated else cls.REPLAY
        return cls.SIMULATED if simulated else cls.LIVE

    @property
    def is_simulated(self) -> bool:
        """Whether no price of the source is real."""
        return self in {Mode.SIMULATED, Mode.SIMULATED_REPLAY}

    @property
    def is_replay(self) -> bool:
        """Whether the source is a recorded tape."""
        return self in {Mode.REPLAY, Mode.SIMULATED_REPLAY}

    @property
    def label(self) -> str:
        """The mark of texts about the source; empty for a live market.

        >>> Mode.SIMULATED_REPLAY.label
        'SIMULATED REPLAY'
        """
        return "" if self is Mode.LIVE else self.value.upper()
