"""Ticks in recorded format for the Kafka benchmarks, and processor time of processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from benchmarks.tape import DAY, RAW
from volspike.market import SECOND_NS, Kind, Tick
from volspike.streams.clients import KafkaSettings
from volspike.streams.producer import TopicProducer
from volspike.streams.wire import Message, tick_message
from volspike.tape import tape_line

PAIRS: Final = ("BTC-USD", "ETH-USD")
START: Final = 1_764_999_936 * SECOND_NS
SPACING_NS: Final = 50_000_000
"""Ten ticks per second and product: all rows after the first five minutes are warm."""

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def tick_at(number: int, received: int) -> Message:
    """Ticks of the pairs, alternating."""
    pair, price = PAIRS[number % len(PAIRS)], 89_565.0 + (number * 7_919 % 401 - 200) / 100
    tick = Tick(time=received, received=received, kind=Kind.TICKER, product_id=pair, price=price,
                best_bid=price - 0.01, best_ask=price + 0.01, bid_size=0.25, ask_size=0.5)  # fmt: skip
    raw = RAW.format(price=price, bid=price - 0.01, ask=price + 0.01, bid_size=0.25, ask_size=0.5)
    line = tape_line(tick, raw=raw.replace("BTC-USD", pair).encode(), day=DAY)
    return tick_message(pair, line, received)


def fill(settings: KafkaSettings, count: int) -> None:
    """Send the given number of ticks to the topic."""
    with TopicProducer(settings, settings.topic_raw) as producer:
        for number in range(count):
            producer.send(tick_at(number, START + number * SPACING_NS))


def cpu_seconds(pid: int | None = None) -> float:
    """Processor time of all threads of a process, in hundredths of a second; of this process without ``pid``."""
    if pid is None:
        used = os.times()
        return used.user + used.system
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND
