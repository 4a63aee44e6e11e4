"""The commands one after the other on a real broker, as a user gives them."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from tests.streams.brokers import Kafka
from tests.streams.contract import by_key
from tests.streams.lines import write_tape

from tests_system.kafka.market import Market, expected_rows, make_market
from tests_system.kafka.reading import read_whole
from tests_system.processes import Outcome, volspike, well
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
    """Topics of one test, and the commands on them."""

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
        """``volspike COMMAND`` on this cluster."""
        return volspike(self.folder, command, "--bootstrap-servers", self.settings.bootstrap_servers, *arguments)

    def replay(self) -> None:
        """The tape into the topic."""
        well(self.run("replay-to-kafka", "--input", self.tape, "--topic", self.settings.topic_raw, "--speed", 0))

    def featurize(self, *arguments: object) -> Outcome:
        """All ticks that are there."""
        topics = ("--topic-in", self.settings.topic_raw, "--topic-out", self.settings.topic_features)
        return self.run("featurize", *topics, "--group", f"f-{self.group}", "--finish", *arguments)

    def predict(self, *arguments: object) -> Outcome:
        """All rows that are there."""
        topics = ("--topic-in", self.settings.topic_features, "--topic-out", self.settings.topic_predictions)
        return self.run("predict-stream", *topics, "--group", f"p-{self.group}", "--finish", *arguments)


@pytest.fixture
def pipeline(cluster: Kafka, tmp_path: Path, market: Market) -> Pipeline:
    """Fresh topics with the market's tape beside them."""
    return Pipeline(cluster, tmp_path, market)


def test_a_stream_and_a_replay_make_the_same_file(pipeline: Pipeline, market: Market) -> None:
    """Ticks through Kafka end in the feature file that `replay` makes of the tape, labels included."""
    pipeline.replay()
    told = well(pipeline.featurize("--output-file", "stream.parquet", "--add-labels"))
    assert f"{TICKS:,} messages" in told.out
    assert "rows labelled" in told.out
    again = well(pipeline.featurize("--output-file", "stream.parquet", "--add-labels"))
    assert "\n0 messages" in again.out
    well(volspike(pipeline.folder, "replay", "--raw", pipeline.tape, "--out", "plain.parquet", "--add-labels"))
    found = compare(pipeline.folder / "stream.parquet", pipeline.folder / "plain.parquet", labels=True)
    assert found.is_equal, found
    assert found.common == TICKS
    well(pipeline.predict())  # the model that nobody had to name, of whose features the rows are
    assert len(read_whole(pipeline.settings, pipeline.settings.topic_predictions)) == TICKS


def test_rows_per_second(pipeline: Pipeline, market: Market) -> None:
    """`--every 1s` makes the rows that the engine makes at the end of each second."""
    pipeline.replay()
    well(pipeline.featurize("--every", "1s"))
    found = by_key(read_whole(pipeline.settings, pipeline.settings.topic_features))
    assert found == expected_rows(market.ticks, FeatureSet(scope=Scope.FULL), Every.SECOND)


def test_rows_of_other_features_stop_the_predictor(pipeline: Pipeline) -> None:
    """The model says what it expects and what came; nothing is predicted, and nothing passed over."""
    pipeline.replay()
    told = well(pipeline.featurize("--feature-set", "core", "--windows", "30", "60"))
    assert "predict-stream with this model will refuse these rows" in told.err
    for _ in range(2):
        told = pipeline.predict()
        assert (told.status, told.err.count("\n")) == (4, 1)
        assert "SchemaMismatch: model har expects feature digest" in told.err
        assert "give featurize and predict-stream the same --model" in told.err
    assert read_whole(pipeline.settings, pipeline.settings.topic_predictions) == []


def test_a_log_that_was_cut_is_told(pipeline: Pipeline) -> None:
    """Ticks that were deleted before anybody took them are an error with a way out, not a silent hole."""
    pipeline.replay()
    well(pipeline.featurize())
    taken = describe_topics(pipeline.settings, [pipeline.settings.topic_raw])
    pipeline.replay()
    committed = min(extent.high for extent in taken[0].partitions)
    number = next(extent.partition for extent in taken[0].partitions if extent.high == committed)
    admin = open_admin(pipeline.settings)
    cut = TopicPartition(pipeline.settings.topic_raw, number, committed + 10)
    for outcome in admin.delete_records([cut]).values():
        outcome.result(30)
    told = pipeline.featurize()
    assert (told.status, told.err.count("\n")) == (4, 1)
    assert "StreamTruncated" in told.err
    assert f"offsets {committed} to {committed + 10} were deleted" in told.err
    assert "--cold-start" in told.err
    well(pipeline.featurize("--cold-start"))
