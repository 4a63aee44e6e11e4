"""The whole pipeline on a real broker, command by command as a user gives them; ``make e2e``.

    python -m tests_system.e2e simple full [--bootstrap-servers HOST:PORT]

*simple*: topics, a market listened to and sent into Kafka, the topic checked, the API. *full* adds a recorded tape,
features, predictions, and both workers while the market goes on. Each prints what it checked, and the first thing that
is not as it should be ends it with status 1; whatever it started is ended by its id. Without an address a broker of its
own is started, from Maven's jars. An address means a cluster whose topics hold nothing yet.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pyarrow.parquet as pq
from confluent_kafka import Message
from tests.streams.brokers import Kafka

from tests_system.kafka.reading import read_whole
from tests_system.processes import VOLSPIKE, Server, environment, finished
from volspike.models import TEN_FEATURES
from volspike.streams.clients import KafkaSettings
from volspike.streams.wire import decode_prediction

LISTEN_MIN: Final = 0.25
TAPE_MIN: Final = 12
AWAITED_S: Final = 60.0
PAIRS: Final = ("BTC-USD", "ETH-USD")


def say(text: str) -> None:
    """Tells how far it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Failed(Exception):
    """Something is not as it should be; the text says what."""


class Run:
    """Commands on one cluster, in one folder, and what was found so far."""

    def __init__(self, folder: Path, servers: str) -> None:
        self.folder = folder
        self.settings = KafkaSettings(bootstrap_servers=servers)
        self._started: list[subprocess.Popen[str]] = []
        self._servers = servers

    def check(self, is_so: bool, what: str) -> None:
        """Tells what was checked.

        Raises:
            Failed: it is not so.
        """
        if not is_so:
            raise Failed(what)
        say(f"  ok  {what}")

    def volspike(self, *words: object) -> str:
        """``volspike WORDS`` to its end; what it printed.

        Raises:
            Failed: its status is not 0.
        """
        outcome = finished([*VOLSPIKE, *map(str, words)], self.folder, KAFKA_BOOTSTRAP_SERVERS=self._servers)
        told = " ".join(outcome.out.split("\n")[-2:]).strip()
        if outcome.status:
            raise Failed(f"volspike {words[0]} ended with {outcome.status}: {outcome.err.strip() or told}")
        self.check(True, f"volspike {words[0]}: {told}")
        return outcome.out

    def start(self, *words: object, **variables: str) -> subprocess.Popen[str]:
        """``volspike WORDS`` that goes on until it is ended; its stdout can be read."""
        process = subprocess.Popen(  # noqa: S603  our own command
            [*VOLSPIKE, *map(str, words)],
            cwd=self.folder,
            env=environment(KAFKA_BOOTSTRAP_SERVERS=self._servers, PYTHONUNBUFFERED="1", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self, process: subprocess.Popen[str], what: str) -> None:
        """Asks it to end, which it does in order."""
        process.send_signal(signal.SIGTERM)
        status = process.wait(AWAITED_S)
        self.check(status == 0, f"{what} ended in order, with status {status}")

    def messages(self, topic: str) -> list[Message]:
        """Everything that is committed in a topic."""
        return read_whole(self.settings, topic)

    def await_messages(self, topic: str, wanted: int) -> int:
        """How many lie in a topic once there are so many, or time is over."""
        until = time.monotonic() + AWAITED_S
        while (found := len(self.messages(topic))) < wanted and time.monotonic() < until:
            time.sleep(0.5)
        return found

    def close(self) -> None:
        """Ends what still runs."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def make_topics(run: Run) -> None:
    """The pipeline's topics, made by the command and listed by another."""
    run.volspike("topics", "create")
    listed = run.volspike("consume-check", "--list")
    names = [getattr(run.settings, name) for name in run.settings.__struct_fields__ if name.startswith("topic_")]
    run.check(all(name in listed for name in names), f"topics {', '.join(names)} are there")


def listen(run: Run) -> None:
    """A simulated exchange behind a socket, listened to: what lies in Kafka is what lies on the tape."""
    before = len(run.messages(run.settings.topic_raw))
    exchange = run.start("simulate", "--port", 0, *(word for pair in PAIRS for word in ("--pair", pair)))
    assert exchange.stdout is not None
    url = next((found[0] for line in exchange.stdout if (found := re.search(r"ws://127\.0\.0\.1:\d+\S*", line))), "")
    run.check(bool(url), f"the simulated exchange listens at {url}")
    listener = run.start("ingest", "--source", "coinbase", "--pairs", *_pairs(), "--minutes", LISTEN_MIN,
                         "--save-disk", "--kafka", COINBASE_WS_URL=url)  # fmt: skip
    said, _ = listener.communicate(timeout=AWAITED_S + 60 * LISTEN_MIN)
    run.check(listener.returncode == 0, f"volspike ingest: {' '.join(said.split(chr(10))[-3:]).strip()}")
    run.end(exchange, "the exchange")
    taped = sum(_ticks(path) for path in (run.folder / "data" / "raw").rglob("*.ndjson"))
    sent = len(run.messages(run.settings.topic_raw)) - before
    run.check(sent == taped > 0, f"{sent:,} ticks lie in {run.settings.topic_raw}, {taped:,} on the tape")
    run.volspike("consume-check", "--topic", run.settings.topic_raw, "--min", before + sent)


def _pairs() -> list[str]:
    return [PAIRS[0], "--pair", PAIRS[1]]


def _ticks(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def ask_api(run: Run) -> None:
    """The API with the model that ships: ready, and answering the ten features of the earlier system."""
    server = Server(run.folder, "--port", 0, "--model", _shipped())
    try:
        run.check(server.get("/health/ready").status == 200, "the API is ready")
        features = msgspec.json.encode({"features": dict.fromkeys(TEN_FEATURES, 0.5)}).decode()
        answer = server.post("/predict", features)
        run.check(answer.status == 200 and 0 <= answer.json["probability"] <= 1, f"/predict answers {answer.json}")
        run.check(server.post("/predict", "{}").status == 422, "/predict refuses what it does not understand")
        run.check("predictions_total" in server.get("/metrics").body.decode(), "/metrics counts predictions")
        status, seconds = server.stop()
        run.check(status == 0, f"the API stopped in {seconds:.1f} s")
    finally:
        server.close()


def _shipped() -> Path:
    from volspike.models import DEFAULT_MODEL  # noqa: PLC0415

    return DEFAULT_MODEL


def replay_tape(run: Run) -> int:
    """A tape into Kafka, featurized and scored to the end; the rows are those of a replay, bit for bit."""
    settings = run.settings
    run.volspike("simulate", "--minutes", TAPE_MIN, "--out", "tape.ndjson", *_told("--pair", PAIRS))
    run.volspike("replay-to-kafka", "--input", "tape.ndjson", "--speed", 0)
    ticks = len(run.messages(settings.topic_raw))
    run.check(ticks == _ticks(run.folder / "tape.ndjson"), f"each of the tape's {ticks:,} lines is one message")
    run.volspike("featurize", "--output-file", "features.parquet", "--finish")
    run.volspike("replay", "--raw", "tape.ndjson", "--out", "plain.parquet", "--compare", "features.parquet")
    rows = len(run.messages(settings.topic_features))
    run.check(rows == ticks, f"{rows:,} feature rows of {ticks:,} ticks")
    run.volspike("predict-stream", "--finish")
    check_predictions(run, rows)
    run.check(not run.messages(settings.topic_dead), "no dead letter")
    return rows


def _told(flag: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def check_predictions(run: Run, rows: int) -> None:
    """One prediction for each row; those of warm rows have a probability."""
    predictions = [decode_prediction(each.value() or b"") for each in run.messages(run.settings.topic_predictions)]
    scored = [each.probability for each in predictions if each.probability is not None]
    run.check(len(predictions) == rows, f"{len(predictions):,} predictions of {rows:,} rows")
    run.check(
        bool(scored) and all(0 <= probability <= 1 for probability in scored),
        f"{len(scored):,} of them with a probability, by {predictions[-1].model_version}",
    )
    run.check(all(each.simulated for each in predictions), "all of them say that their market is simulated")


def work_live(run: Run, rows: int) -> None:
    """Both workers while a market is listened to: each ticker message is predicted once, and both end in order."""
    settings = run.settings
    featurizer = run.start("featurize", "--output-file", "features.parquet")
    predictor = run.start("predict-stream")
    listen(run)
    # trades are told as well, and make no row under the model's profile: a replay of the recording knows how many do
    run.volspike("replay", "--raw", "data/raw", "--out", "live.parquet", "--profile", "ticker")
    wanted = rows + rows_of(run.folder / "live.parquet")
    found = run.await_messages(settings.topic_predictions, wanted)
    run.check(found == wanted, f"{found:,} predictions of {wanted:,} rows, {wanted - rows:,} of them live")
    run.end(featurizer, "volspike featurize")
    run.end(predictor, "volspike predict-stream")
    kept = rows_of(run.folder / "features.parquet")
    run.check(kept == wanted, f"features.parquet has {kept:,} rows")


def rows_of(file: Path) -> int:
    """How many rows a Parquet file has."""
    return int(pq.read_metadata(file).num_rows)


def simple(run: Run) -> None:
    """Ingestion and the API."""
    make_topics(run)
    listen(run)
    ask_api(run)


def full(run: Run) -> None:
    """Everything."""
    make_topics(run)
    rows = replay_tape(run)
    work_live(run, rows)
    ask_api(run)


WAYS: Final = {"simple": simple, "full": full}


@contextlib.contextmanager
def cluster(servers: str | None) -> Iterator[str]:
    """The address given, or that of a broker of our own."""
    if servers is not None:
        yield servers
    else:
        with Kafka() as kafka:
            yield kafka.bootstrap


def main() -> None:
    """Goes the ways that are named, each on a cluster and in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="+", choices=list(WAYS))
    parser.add_argument("--bootstrap-servers", help="a cluster to use in place of one of its own")
    asked = parser.parse_args()
    for name in asked.ways:
        began = time.monotonic()
        with cluster(asked.bootstrap_servers) as servers, tempfile.TemporaryDirectory(prefix="e2e-") as folder:
            say(f"{name}, on {servers}")
            run = Run(Path(folder), servers)
            try:
                WAYS[name](run)
            except Failed as fault:
                say(f"  FAILED  {fault}")
                sys.exit(1)
            finally:
                run.close()
        say(f"{name} passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
