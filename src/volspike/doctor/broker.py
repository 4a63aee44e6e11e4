"""Whether Kafka answers, and has the pipeline's topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import StreamError

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings

CHECK: Final = "kafka"


def look_at_kafka(settings: KafkaSettings | None, is_asked: bool, within_s: float) -> list[Finding]:
    """Asks the brokers for their topics; without ``settings`` there is no client to ask with.

    Raises:
        UsageError: an option is not one of librdkafka's.
    """
    silence = Severity.BAD if is_asked else Severity.NOTE
    if settings is None:
        found = "its client is not installed"
        return [Finding(check=CHECK, severity=silence, found=found, remedy="pip install 'volspike[kafka]'")]
    from volspike.streams.clients import metadata_of  # noqa: PLC0415  importing the package needs the client

    facts: dict[str, Fact] = {"servers": settings.bootstrap_servers}
    try:
        cluster = metadata_of(settings, within_s)
    except StreamError as error:
        found = str(error).partition(";")[0] + ("" if is_asked else "; not needed unless you use it")
        remedy = "`docker compose -f docker/compose.yaml up -d kafka`, or name brokers with --bootstrap-servers"
        return [Finding(check=CHECK, severity=silence, found=found, remedy=remedy, facts=facts)]
    missing = [topic for topic in _topics(settings) if topic not in cluster.topics]
    brokers = len(cluster.brokers)
    facts |= {"brokers": brokers, "missing_topics": " ".join(missing)}
    found = f"{settings.bootstrap_servers} answers with {brokers} broker{'' if brokers == 1 else 's'}"
    if missing:
        found, remedy = f"{found}, without topics {', '.join(missing)}", "`volspike topics create`"
        return [Finding(check=CHECK, severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]
    return [Finding(check=CHECK, severity=Severity.FINE, found=f"{found} and all topics", facts=facts)]


def _topics(settings: KafkaSettings) -> tuple[str, ...]:
    return (
        settings.topic_raw,
        settings.topic_features,
        settings.topic_predictions,
        settings.topic_dead,
        settings.topic_state,
    )
