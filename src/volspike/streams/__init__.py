"""The pipeline on Kafka: topics, ticks into them and out of them. Knows of no HTTP.

Its client is an extra. Without it nothing of this package can be imported.
"""

from importlib.util import find_spec

from volspike.errors import UsageError

if find_spec("confluent_kafka") is None:
    raise UsageError("Kafka needs an extra that is not installed: pip install 'volspike[kafka]'")
