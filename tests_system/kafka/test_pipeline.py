"""The commands of the pipeline in order on a real broker, as a user runs them."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from tests.streams.brokers import Kafka
from tests.streams.contract import by_key
from tests.streams.lines import write_tape

from tests_system.kafka.market import Market, expected_rows, make_market
from tests_system.kafka.reading import read_all
from tests_system.processes import Outcome, run_volspike, succeeded
from volspike.datasets.dataset import compare
from volspike.features import Every, FeatureSet, Scope
from volspike.streams.clients import KafkaSettings, open_admin
from volspike.streams.topics import create_topics, describe_topics, pipeline_topics

TICKS = 12_000


@pytest.fixture(scope="module")
def market() -> Market:
    """Twenty minutes of a market."""
    return make_market(TICKS, damaged_every=0)


class Pipeline:
    """The topics of one test, and commands that use them."""

    def __init__(self, cluster: Kafka, folder: Path, market: Market) -> None:
        name = uuid4().hex[:8]
        self.settings = KafkaSettings(
            bootstrap_servers=cluster.bootstrap,
            topic_raw=f"raw-{name}",
            topic_features=f"features-{name}",
            topic_predictions=f"predictions-{name}",
        )
        create_topics(self.settings, pipeline_topics(self.settings))
        self.folder = folder
        self.group = name
        self.tape = write_tape(folder / "ticks.ndjson", market.ticks)

    def run(self, command: str, *arguments: object) -> Outcome:
        """Runs ``volspike COMMAND`` on this cluster."""
        return run_volspike(self.folder, command, "--bootstrap-servers", self.settings.bootstrap_servers, *arguments)

    def replay(self) -> None:
        """Sends the tape to the topic of ticks."""
        succeeded(self.run("replay-to-kafka", "--input", self.tape, "--topic", self.settings.topic_raw, "--speed", 0))

    def featurize(self, *arguments: object) -> Outcome:
        """Featurizes all ticks in the topic."""
        topics = ("--topic-in", self.settings.topic_raw, "--topic-out", self.settings.topic_features)
        return self.run("featurize", *topics, "--group", f"f-{self.group}", "--finish", *arguments)

    def predict(self, *arguments: object) -> Outcome:
        """Scores all rows in the topic."""
        topics = ("--topic-in", self.settings.topic_features, "--topic-out", self.settings.topic_predictions)
        return self.run("predict-stream", *topics, "--group", f"p-{self.group}", "--finish", *arguments)


@pytest.fixture
def pipeline(cluster: Kafka, tmp_path: Path, market: Market) -> Pipeline:
    """New topics, and a folder with the tape of the market."""
    return Pipeline(cluster, tmp_path, market)


def test_stream_and_replay_write_the_same_file(pipeline: Pipeline, market: Market) -> None:
    """Ticks sent through Kafka give the feature file that `replay` writes from the tape, labels included."""
    pipeline.replay()
    outcome = succeeded(pipeline.featurize("--output-file", "stream.parquet", "--add-labels"))
    assert f"{TICKS:,} messages" in outcome.out
    assert "rows labelled" in outcome.out
    again = succeeded(pipeline.featurize("--output-file", "stream.parquet", "--add-labels"))
    assert "\n0 messages" in again.out
    plain = ("--raw", pipeline.tape, "--every", "1s", "--out", "plain.parquet", "--add-labels")
    succeeded(run_volspike(pipeline.folder, "replay", *plain))
    found = compare(pipeline.folder / "stream.parquet", pipeline.folder / "plain.parquet", labels=True)
    assert found.is_equal, found
    assert found.common > 1000
    succeeded(pipeline.predict())  # the default model, which has the features of the rows
    assert len(read_all(pipeline.settings, pipeline.settings.topic_predictions)) == found.common


def test_rows_per_second(pipeline: Pipeline, market: Market) -> None:
    """`--every 1s` gives the rows that the engine makes at the end of each second."""
    pipeline.replay()
    succeeded(pipeline.featurize("--every", "1s"))
    found = by_key(read_all(pipeline.settings, pipeline.settings.topic_features))
    assert found == expected_rows(market.ticks, FeatureSet(scope=Scope.FULL), Every.SECOND)


def test_rows_of_other_features_stop_the_predictor(pipeline: Pipeline) -> None:
    """The error names the expected and the received features; no row is predicted, and none is skipped."""
    pipeline.replay()
    outcome = succeeded(pipeline.featurize("--feature-set", "core", "--windows", "30", "60"))
    assert "predict-stream with this model will refuse these rows" in outcome.err
    for _ in range(2):
        outcome = pipeline.predict()
        limitation, error = outcome.err.splitlines()
        assert (outcome.status, "adapts to each product in `volspike up` only" in limitation) == (4, True)
        assert error.startswith("SchemaMismatch: model relative_trees expects feature digest")
        assert "give featurize and predict-stream the same --model" in outcome.err
    assert read_all(pipeline.settings, pipeline.settings.topic_predictions) == []


def test_deleted_ticks_are_an_error(pipeline: Pipeline) -> None:
    """If ticks are deleted before they are processed, the error names their offsets and the option that continues."""
    pipeline.replay()
    succeeded(pipeline.featurize())
    processed = describe_topics(pipeline.settings, [pipeline.settings.topic_raw])
    pipeline.replay()
    committed = min(extent.high for extent in processed[0].partitions)
    number = next(extent.partition for extent in processed[0].partitions if extent.high == committed)
    admin = open_admin(pipeline.settings)
    cut = TopicPartition(pipeline.settings.topic_raw, number, committed + 10)
    for outcome in admin.delete_records([cut]).values():
        outcome.result(30)
    outcome = pipeline.featurize()
    assert (outcome.status, outcome.err.count("\n")) == (4, 1)
    assert "StreamTruncated" in outcome.err
    assert f"offsets {committed} to {committed + 10} were deleted" in outcome.err
    assert "--cold-start" in outcome.err
    succeeded(pipeline.featurize("--cold-start"))
