"""The complete pipeline on a real broker, command by command as a user runs it; ``make e2e``.

    python -m tests_system.e2e simple full [--bootstrap-servers HOST:PORT]

*simple* creates the topics, ingests a market into Kafka, checks the topic, and queries the API. *full* adds a recorded
tape, features, predictions, and both workers during live ingestion. Each scenario prints every check and ends with
status 1 at the first that fails; the processes it started are killed. Without an address, a broker is started from
Maven's jars. With an address, the topics of that cluster must be empty.
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

from tests_system.kafka.reading import read_all
from tests_system.processes import VOLSPIKE, Server, environment, run_process
from volspike.models import TEN_FEATURES
from volspike.streams.clients import KafkaSettings
from volspike.streams.wire import decode_prediction

INGEST_MIN: Final = 0.25
TAPE_MIN: Final = 12
TIMEOUT_S: Final = 60.0
PAIRS: Final = ("BTC-USD", "ETH-USD")
EVERY: Final = ("--every", "1s")
"""The rows of the shipped model."""


def say(text: str) -> None:
    """Prints a line of progress at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class CheckFailed(Exception):
    """A check failed; the text states which."""


class Run:
    """Commands and checks on one cluster, in one working folder."""

    def __init__(self, folder: Path, servers: str) -> None:
        self.folder = folder
        self.settings = KafkaSettings(bootstrap_servers=servers)
        self._started: list[subprocess.Popen[str]] = []
        self._servers = servers

    def check(self, passed: bool, claim: str) -> None:
        """Prints ``claim`` if the check passed.

        Raises:
            CheckFailed: it did not pass.
        """
        if not passed:
            raise CheckFailed(claim)
        say(f"  ok  {claim}")

    def volspike(self, *arguments: object) -> str:
        """Runs ``volspike ARGUMENTS`` until it ends, and returns its output.

        Raises:
            CheckFailed: its exit status is not 0.
        """
        outcome = run_process([*VOLSPIKE, *map(str, arguments)], self.folder, KAFKA_BOOTSTRAP_SERVERS=self._servers)
        last = " ".join(outcome.out.split("\n")[-2:]).strip()
        if outcome.status:
            raise CheckFailed(f"volspike {arguments[0]} ended with {outcome.status}: {outcome.err.strip() or last}")
        self.check(True, f"volspike {arguments[0]}: {last}")
        return outcome.out

    def start(self, *arguments: object, **variables: str) -> subprocess.Popen[str]:
        """Starts ``volspike ARGUMENTS`` and returns the process, whose standard output is a pipe."""
        process = subprocess.Popen(  # noqa: S603  our own command
            [*VOLSPIKE, *map(str, arguments)],
            cwd=self.folder,
            env=environment(KAFKA_BOOTSTRAP_SERVERS=self._servers, PYTHONUNBUFFERED="1", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return process

    def stop(self, process: subprocess.Popen[str], name: str) -> None:
        """Sends SIGTERM and checks that the process ends with status 0."""
        process.send_signal(signal.SIGTERM)
        status = process.wait(TIMEOUT_S)
        self.check(status == 0, f"{name} stopped with status {status}")

    def messages(self, topic: str) -> list[Message]:
        """All committed messages of a topic."""
        return read_all(self.settings, topic)

    def await_messages(self, topic: str, wanted: int) -> int:
        """The number of messages in a topic once it is ``wanted``, or after a timeout."""
        until = time.monotonic() + TIMEOUT_S
        while (found := len(self.messages(topic))) < wanted and time.monotonic() < until:
            time.sleep(0.5)
        return found

    def close(self) -> None:
        """Kills the processes that still run."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def create_topics(run: Run) -> None:
    """Creates the topics of the pipeline and checks that ``consume-check`` lists them."""
    run.volspike("topics", "create")
    listed = run.volspike("consume-check", "--list")
    names = [getattr(run.settings, name) for name in run.settings.__struct_fields__ if name.startswith("topic_")]
    run.check(all(name in listed for name in names), f"topics {', '.join(names)} exist")


def ingest(run: Run) -> None:
    """Ingests a simulated exchange through a socket and checks that Kafka has every tick of the tape."""
    before = len(run.messages(run.settings.topic_raw))
    exchange = run.start("simulate", "--port", 0, *(word for pair in PAIRS for word in ("--pair", pair)))
    assert exchange.stdout is not None
    url = next((found[0] for line in exchange.stdout if (found := re.search(r"ws://127\.0\.0\.1:\d+\S*", line))), "")
    run.check(bool(url), f"the simulated exchange listens at {url}")
    ingester = run.start("ingest", "--source", "coinbase", "--pairs", *_pairs(), "--minutes", INGEST_MIN,
                         "--save-disk", "--kafka", COINBASE_WS_URL=url)  # fmt: skip
    output, _ = ingester.communicate(timeout=TIMEOUT_S + 60 * INGEST_MIN)
    run.check(ingester.returncode == 0, f"volspike ingest: {' '.join(output.split(chr(10))[-3:]).strip()}")
    run.stop(exchange, "the simulated exchange")
    taped = sum(_ticks(path) for path in (run.folder / "data" / "raw").rglob("*.ndjson"))
    sent = len(run.messages(run.settings.topic_raw)) - before
    run.check(sent == taped > 0, f"{sent:,} ticks in {run.settings.topic_raw}, {taped:,} on the tape")
    run.volspike("consume-check", "--topic", run.settings.topic_raw, "--min", before + sent)


def _pairs() -> list[str]:
    return [PAIRS[0], "--pair", PAIRS[1]]


def _ticks(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def query_api(run: Run) -> None:
    """Starts the API with the shipped model and checks readiness, predictions, validation and metrics."""
    server = Server(run.folder, "--port", 0, "--model", _shipped())
    try:
        run.check(server.get("/health/ready").status == 200, "the API is ready")
        features = msgspec.json.encode({"features": dict.fromkeys(TEN_FEATURES, 0.5)}).decode()
        answer = server.post("/predict", features)
        run.check(answer.status == 200 and 0 <= answer.json["probability"] <= 1, f"/predict returns {answer.json}")
        run.check(server.post("/predict", "{}").status == 422, "/predict rejects an invalid body")
        run.check("predictions_total" in server.get("/metrics").body.decode(), "/metrics counts predictions")
        status, seconds = server.stop()
        run.check(status == 0, f"the API stopped in {seconds:.1f} s")
    finally:
        server.close()


def _shipped() -> Path:
    from volspike.models import DEFAULT_MODEL  # noqa: PLC0415

    return DEFAULT_MODEL


def replay_tape(run: Run) -> int:
    """Replays a tape into Kafka, featurizes and scores it, and checks that the rows are bit-equal to a replay."""
    settings = run.settings
    run.volspike("simulate", "--minutes", TAPE_MIN, "--out", "tape.ndjson", *_repeated("--pair", PAIRS))
    run.volspike("replay-to-kafka", "--input", "tape.ndjson", "--speed", 0)
    ticks = len(run.messages(settings.topic_raw))
    run.check(ticks == _ticks(run.folder / "tape.ndjson"), f"one message for each of the {ticks:,} lines of the tape")
    run.volspike("featurize", "--output-file", "features.parquet", "--finish")
    run.volspike("replay", "--raw", "tape.ndjson", *EVERY, "--out", "plain.parquet", "--compare", "features.parquet")
    rows = len(run.messages(settings.topic_features))
    run.check(rows == rows_of(run.folder / "plain.parquet"), f"{rows:,} feature rows from {ticks:,} ticks")
    run.volspike("predict-stream", "--finish")
    check_predictions(run, rows)
    run.check(not run.messages(settings.topic_dead), "no dead letters")
    return rows


def _repeated(flag: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def check_predictions(run: Run, rows: int) -> None:
    """Checks that each row has one prediction, and that predictions have probabilities and a simulated mark."""
    predictions = [decode_prediction(each.value() or b"") for each in run.messages(run.settings.topic_predictions)]
    scored = [each.probability for each in predictions if each.probability is not None]
    run.check(len(predictions) == rows, f"{len(predictions):,} predictions for {rows:,} rows")
    run.check(
        bool(scored) and all(0 <= probability <= 1 for probability in scored),
        f"{len(scored):,} of them have a probability, from {predictions[-1].model_version}",
    )
    run.check(all(each.simulated for each in predictions), "all of them are marked as simulated")


def run_workers(run: Run, rows: int) -> None:
    """Runs both workers during ingestion; checks that each ticker message has one prediction and both stop cleanly."""
    settings = run.settings
    featurizer = run.start("featurize", "--output-file", "features.parquet")
    predictor = run.start("predict-stream")
    ingest(run)
    # The feed has trades as well, which make no row under the model's profile: a replay of the recording counts rows.
    run.volspike("replay", "--raw", "data/raw", *EVERY, "--out", "live.parquet", "--profile", "ticker")
    # The first live tick of each product also ends the last second of the tape before it.
    wanted = rows + len(PAIRS) + rows_of(run.folder / "live.parquet")
    found = run.await_messages(settings.topic_predictions, wanted)
    run.check(found == wanted, f"{found:,} predictions for {wanted:,} rows, {wanted - rows:,} of them since the tape")
    run.stop(featurizer, "volspike featurize")
    run.stop(predictor, "volspike predict-stream")
    kept = rows_of(run.folder / "features.parquet")
    run.check(kept == wanted, f"features.parquet has {kept:,} rows")


def rows_of(file: Path) -> int:
    """The number of rows of a Parquet file."""
    return int(pq.read_metadata(file).num_rows)


def simple(run: Run) -> None:
    """Checks ingestion and the API."""
    create_topics(run)
    ingest(run)
    query_api(run)


def full(run: Run) -> None:
    """Checks the complete pipeline."""
    create_topics(run)
    rows = replay_tape(run)
    run_workers(run, rows)
    query_api(run)


SCENARIOS: Final = {"simple": simple, "full": full}


@contextlib.contextmanager
def cluster(servers: str | None) -> Iterator[str]:
    """The given address, or that of a broker that runs until the end of the block."""
    if servers is not None:
        yield servers
    else:
        with Kafka() as kafka:
            yield kafka.bootstrap


def main() -> None:
    """Runs the named scenarios, each on its own cluster and in its own folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="+", choices=list(SCENARIOS))
    parser.add_argument("--bootstrap-servers", help="use this cluster instead of starting a broker")
    options = parser.parse_args()
    for name in options.scenarios:
        began = time.monotonic()
        with cluster(options.bootstrap_servers) as servers, tempfile.TemporaryDirectory(prefix="e2e-") as folder:
            say(f"{name}, on {servers}")
            run = Run(Path(folder), servers)
            try:
                SCENARIOS[name](run)
            except CheckFailed as fault:
                say(f"  FAILED  {fault}")
                sys.exit(1)
            finally:
                run.close()
        say(f"{name} passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
