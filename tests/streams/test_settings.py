"""A cluster's settings: which may be passed on, and which are never shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from volspike.config import load_settings
from volspike.errors import UsageError
from volspike.streams.clients import KafkaSettings, open_producer, read_options

SECRETS = {"sasl.username": "me", "sasl.password": "hush-1", "ssl.key.password": "hush-2", "ssl.key.pem": "hush-3"}


def test_secrets_are_shown_to_nobody() -> None:
    """Neither repr nor a formatted text holds a password; the user's name is no secret."""
    settings = KafkaSettings(options=SECRETS)
    for shown in (repr(settings), str(settings), f"{settings}", str(settings.__rich_repr__())):
        assert "hush" not in shown
        assert "'me'" in shown
    assert settings.without_secrets("wrong: hush-1!") == "wrong: ***!"


def test_options_reach_the_client_as_they_are() -> None:
    """TLS and SASL settings come last, so that they win over what volspike would choose."""
    client = KafkaSettings(options={**SECRETS, "client.id": "mine"}).client(linger_ms=5, error_cb=print)
    assert client == {
        **SECRETS,
        "bootstrap.servers": "localhost:9092",
        "client.id": "mine",
        "log_level": 0,
        "linger.ms": 5,
        "error_cb": print,
    }


@pytest.mark.parametrize("option", ["acks", "enable.idempotence", "isolation.level", "transactional.id"])
def test_what_correctness_rests_on_cannot_be_changed(option: str) -> None:
    """An option that volspike needs as it is is refused by its name."""
    with pytest.raises(UsageError, match=option):
        load_settings(KafkaSettings, {"options": {option: "x"}}, {}, None, "kafka")


def test_flags_beat_the_environment() -> None:
    """Servers and topics come from their variables where no flag is given."""
    environ = {"KAFKA_BOOTSTRAP_SERVERS": "a:1", "KAFKA_TOPIC_RAW": "raw", "KAFKA_TOPIC_FEATURES": "features"}
    settings = load_settings(KafkaSettings, {"bootstrap_servers": "b:2", "topic_raw": None}, environ, None, "kafka")
    assert (settings.bootstrap_servers, settings.topic_raw, settings.topic_features) == ("b:2", "raw", "features")


def test_options_may_hold_an_equals_sign() -> None:
    """Only the first one separates."""
    assert read_options(["sasl.password=a=b", "x=1", "x=2"]) == {"sasl.password": "a=b", "x": "2"}


def test_a_broken_option_is_refused_without_repeating_it() -> None:
    """An option without a key may be a secret: the error has its position and not its text."""
    with pytest.raises(UsageError, match="number 2") as refused:
        read_options(["a=b", "hush"])
    assert "hush" not in str(refused.value)


def test_an_option_that_does_not_exist_is_named() -> None:
    """librdkafka's refusal becomes one of usage."""
    with pytest.raises(UsageError, match=r"sasl\.pasword"):
        open_producer(KafkaSettings(options={"sasl.pasword": "x"}))


def test_without_the_extra_a_line_says_how_to_get_it(tmp_path: Path) -> None:
    """Where Kafka's client is not installed, the command ends with status 2 and the words to type."""
    code = "import sys; sys.modules['confluent_kafka'] = None; from volspike.cli import main; main()"
    done = subprocess.run(  # noqa: S603  our own command
        [sys.executable, "-c", code, "topics", "list"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'volspike[kafka]'" in done.stderr
