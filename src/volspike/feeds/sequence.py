"""Whether the exchange's own count of its messages has holes."""

from __future__ import annotations

_NOTHING = range(0)


class SequenceCheck:
    """Follows the numbers of one connection, which count every message that the exchange sent on it.

    The count begins wherever the first message stands. ``repeated`` counts the numbers that were no further than
    one before them: duplicates, and messages that came late after they had been told missing.
    """

    __slots__ = ("_highest", "repeated")

    def __init__(self) -> None:
        self._highest = -1
        self.repeated = 0

    def missing(self, number: int) -> range:
        """The numbers that were passed over by going to ``number`` (0 or more); empty for the next in turn.

        >>> check = SequenceCheck()
        >>> [check.missing(number) for number in (7, 8, 11, 11)]
        [range(0, 0), range(0, 0), range(9, 11), range(0, 0)]
        """
        before = self._highest
        if number <= before:
            self.repeated += 1
            return _NOTHING
        self._highest = number
        if number == before + 1 or before < 0:
            return _NOTHING
        return range(before + 1, number)
