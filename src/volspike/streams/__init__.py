"""The pipeline on Kafka, exactly once. Importing it needs the extra ``[kafka]``."""

from importlib.util import find_spec

from volspike.errors import UsageError

if find_spec("confluent_kafka") is None:
    raise UsageError("Kafka needs an extra that is not installed: pip install 'volspike[kafka]'")
