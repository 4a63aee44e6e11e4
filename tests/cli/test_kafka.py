"""The commands that speak with Kafka, on a mock cluster and on none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, run_in
from tests.streams.brokers import MockKafka
from tests.streams.brokers.ports import free_ports
from tests.streams.contract import by_key, read_topic
from tests.streams.lines import lines_of, write_tape
from tests.tape.strategies import read_all, tick_at
from volspike.market import SECOND_NS
from volspike.streams.clients import KafkaSettings

PAIRS = ("BTC-USD", "ETH-USD")
SHORTLY = ("--source", "simulator", "--speed", 60, "--minutes", 0.02)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockKafka]:
    """A cluster of the test's own, named by the environment, with the topic of ticks."""
    with MockKafka() as mock:
        mock.create_topic("ticks.raw")
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", mock.bootstrap)
        yield mock


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address where no broker listens, named by the environment."""
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    return servers


@pytest.fixture
def short_tape(tmp_path: Path) -> Path:
    """200 ticks of two products within two seconds."""
    ticks = [tick_at(k * SECOND_NS // 100, 100.0 + k, PAIRS[k % 2]) for k in range(200)]
    return write_tape(tmp_path / "short.ndjson", ticks)


@pytest.fixture
def volspike(tmp_path: Path) -> Run:
    """``volspike`` in a folder of the test."""
    return partial(run_in, tmp_path)


def read_ticks_topic(cluster: MockKafka, count: int) -> dict[str, list[bytes]]:
    return by_key(read_topic(KafkaSettings(bootstrap_servers=cluster.bootstrap), "ticks.raw", count))


def test_a_tape_goes_into_the_topic_and_the_check_finds_it(volspike: Run, cluster: MockKafka, short_tape: Path) -> None:
    """All lines arrive under their products, the counts are printed, and `consume-check` succeeds."""
    told = volspike("replay-to-kafka", "--input", short_tape, "--speed", 0)
    assert told.status == 0, told.err
    assert told.out.startswith("200 of 200 messages delivered to ticks.raw")
    lines = lines_of(short_tape)
    assert read_ticks_topic(cluster, 200) == {"BTC-USD": lines[::2], "ETH-USD": lines[1::2]}
    check = volspike("consume-check", "--topic", "ticks.raw", "--min", 200)
    assert check.status == 0, check.err
    assert check.out.startswith("200 messages of ticks.raw")
    assert "BTC-USD: 100, ETH-USD: 100" in check.out


def test_no_more_than_asked_is_sent(volspike: Run, cluster: MockKafka, short_tape: Path) -> None:
    """`--max-messages` cuts the tape off, in either spelling."""
    told = volspike("replay-to-kafka", "--input", short_tape, "--speed", 0, "--max_messages", 7)
    assert told.out.startswith("7 of 7 messages")
    assert sum(map(len, read_ticks_topic(cluster, 7).values())) == 7


def test_too_few_messages_end_with_status_3(volspike: Run, cluster: MockKafka) -> None:
    """The check says how many there were and how many were wanted."""
    told = volspike("consume-check", "--topic", "ticks.raw", "--min", 5, "--timeout", 0.2)
    assert_refused(told, DATA, "ticks.raw had 0 messages", "expected 5")


def test_topics_are_listed_and_described(volspike: Run, cluster: MockKafka) -> None:
    """`topics list` and `--list` show the topic, `--info` its partitions."""
    for words in (("topics", "list"), ("consume-check", "--list")):
        assert ["ticks.raw", "3", "1", "0"] in [line.split() for line in volspike(*words).out.splitlines()]
    assert "0 offsets in 3 partitions" in volspike("consume-check", "--info").out
    assert_refused(volspike("consume-check", "--info", "--topic", "other"), MODEL, "no topic other")


def test_a_missing_topic_is_one_line(volspike: Run, cluster: MockKafka, short_tape: Path) -> None:
    """Neither reading nor sending makes a topic by the way; the line says how to make it."""
    for words in (("consume-check",), ("replay-to-kafka", "--input", short_tape)):
        told = volspike(*words, "--topic", "other")
        assert_refused(told, MODEL, "no topic other", "volspike topics create")


def test_an_absent_broker_is_one_line(volspike: Run, nobody: str) -> None:
    """The command ends by itself and names where it looked."""
    assert_refused(volspike("topics", "list"), MODEL, "BrokerUnavailable", nobody, "--bootstrap-servers")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("consume-check", "--min", 0), "--min"),
        (("consume-check", "--timeout", 0), "--timeout"),
        (("topics", "create", "--partitions", 0), "--partitions"),
        (("topics", "drop"), "drop"),
        (("topics", "list", "--kafka-option", "hush"), "key=value"),
        (("topics", "list", "--kafka-option", "acks=1"), "acks"),
        (("replay-to-kafka", "--input", "none.ndjson"), "no such tape"),
        (("replay-to-kafka", "--input", "none.ndjson", "--speed", -1), "--speed"),
        (("ingest", "--kafka", "--kafka-option", "no.such=1", "--source", "simulator"), "no.such"),
        (("ingest", "--source", "simulator", "--metrics-port", 99_999), "--metrics-port"),
    ],
)
def test_wrong_calls_are_refused(volspike: Run, nobody: str, words: tuple[object, ...], named: str) -> None:
    """One line that names the error, before a broker is contacted."""
    told = volspike(*words)
    assert (told.status, told.err.strip().count("\n")) == (USAGE, 0), told
    assert named in told.err
    assert "hush" not in told.err


def test_ingest_records_and_sends_the_same_ticks(volspike: Run, cluster: MockKafka, tmp_path: Path) -> None:
    """With --kafka each tick is on the tape and in the topic, with the same content."""
    told = volspike("ingest", *SHORTLY, "--out", "tapes", "--kafka")
    assert told.status == 0, told.err
    lines = [line for tape in sorted((tmp_path / "tapes").glob("ticks_*")) for line in lines_of(tape)]
    assert f"{len(lines):,} ticks delivered to ticks.raw" in told.out
    assert len(lines) > 0
    assert read_ticks_topic(cluster, len(lines)) == {"BTC-USD": lines}


def test_ingest_records_where_no_broker_answers(
    volspike: Run, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absent broker costs nothing of the recording; what was not delivered is counted, and where it is."""
    monkeypatch.setattr("volspike.cli.ingest.DELIVER_WITHIN_S", 0.0)
    told = volspike("ingest", *SHORTLY, "--out", "tapes", "--kafka")
    assert told.status == 0, told.err
    ticks = read_all(tmp_path / "tapes")
    assert f"{len(ticks):,} ticks were not delivered to ticks.raw; the tapes in tapes have them" in told.err
    assert "0 ticks delivered to ticks.raw" in told.out
