"""librdkafka's mock cluster as a process: ``python mock_process.py``.

Prints its bootstrap servers; then each line ``NAME PARTITIONS`` on its input makes a topic and is answered ``ok`` or
with the error's name; it ends with its input.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import confluent_kafka


def library() -> ctypes.CDLL:
    """The librdkafka that came with the client."""
    package = Path(confluent_kafka.__file__).parent
    found = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    kafka = ctypes.CDLL(str(found[0]))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(kafka, name).restype = ctypes.c_void_p
    for name in ("rd_kafka_mock_cluster_bootstraps", "rd_kafka_err2name"):
        getattr(kafka, name).restype = ctypes.c_char_p
    return kafka


def main() -> None:
    """Serves until the input ends."""
    kafka = library()
    reason = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(kafka.rd_kafka_conf_new())
    kafka.rd_kafka_conf_set(settings, b"log_level", b"0", reason, ctypes.c_size_t(len(reason)))  # it has no brokers yet
    producer = kafka.rd_kafka_new(0, settings, reason, ctypes.c_size_t(len(reason)))
    cluster = ctypes.c_void_p(kafka.rd_kafka_mock_cluster_new(ctypes.c_void_p(producer), 1))
    kafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    print(kafka.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)  # noqa: T201  its only voice
    for line in sys.stdin:
        name, partitions = line.split()
        failed = kafka.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), 1)
        print(kafka.rd_kafka_err2name(failed).decode() if failed else "ok", flush=True)  # noqa: T201  its only voice


if __name__ == "__main__":
    main()
