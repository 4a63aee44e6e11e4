"""The features of the memory of a day computed from their formulas: all seconds of all sessions, without state."""

from __future__ import annotations

import math
from collections import defaultdict

from tests.features.reference import SECOND, Session
from tests.features.reference_added import Seconds
from tests.features.reference_path import NAN, over
from volspike.market import Profile


def day_memory(sessions: list[Session], newest: int, profile: Profile) -> dict[str, float]:
    """The features of the memory of a day at the end of second ``newest``, in the last of these sessions."""
    count: dict[int, int] = defaultdict(int)
    squares: dict[int, float] = defaultdict(float)
    for session in sessions:
        end = newest if session is sessions[-1] else session.clock // SECOND - 1
        if end >= session.first_second:
            seconds = Seconds(session, end, profile)
            for k, r in enumerate(seconds.r, session.first_second):
                count[k // 300] += 1
                squares[k // 300] += r * r
    now = newest // 300

    def mean(first: int, last: int, least: int) -> float:
        n = sum(count[number] for number in range(first, last))
        return sum(squares[number] for number in range(first, last)) / n if n >= least else NAN

    of_hour, of_day = seconds.mean(1800, seconds.r**2), mean(now - 288, now, 3600)
    yesterday = mean(now - 289, now - 285, 300)
    return {
        "hour_to_day_ratio": math.sqrt(over(of_hour, of_day)),
        "yesterday_to_day_ratio": math.sqrt(over(yesterday, of_day)),
        "yesterday_to_hour_ratio": math.sqrt(over(yesterday, of_hour)),
    }
