"""Apache Kafka 4 in KRaft mode: brokers that are controllers too, on free ports of loopback, in a folder of their own.

A broker can be stopped, killed and started again with its data.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.streams.brokers.jars import kafka_jars
from tests.streams.brokers.jvm import Jvm
from tests.streams.brokers.ports import free_ports

CLUSTER_ID: Final = "MkU3OEVBNTcwNTJENDM2Qg"
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0


class Kafka:
    """A cluster of ``brokers`` nodes, numbered from 1, that answers once this is made.

    Internal topics have one partition (and a copy on each broker, up to three), a group begins without delay, and
    sessions and transactions may be as short as a second. ``optimize`` turns on the optimizing compiler
    of the JVM.

        with Kafka(3) as kafka:
            kafka.kill(2)
            kafka.start(2)
    """

    def __init__(self, brokers: int = 1, *, heap: str = "384m", optimize: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._heap = heap
        self._optimize = optimize
        ports = free_ports(2 * brokers)
        self._ports = dict(enumerate(ports[:brokers], 1))
        self._controllers = dict(enumerate(ports[brokers:], 1))
        self._nodes: dict[int, Jvm] = {}
        try:
            self._format()
            for node in self._ports:
                self._launch(node)
            self.wait_for(set(self._ports))
        except BaseException:
            self.close()
            raise

    @property
    def bootstrap(self) -> str:
        """All brokers, also those that are down."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports.values())

    @property
    def nodes(self) -> list[int]:
        """The numbers of the brokers."""
        return list(self._ports)

    def pid(self, node: int = 1) -> int:
        """The process id of a broker that runs."""
        return self._nodes[node].pid

    def log(self, node: int = 1) -> str:
        """What a broker has written so far."""
        file = self.folder / f"{node}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def stop(self, node: int = 1) -> None:
        """Stops a broker in order; it hands its partitions over first. Killed if that takes too long."""
        self._nodes.pop(node).end(STOP_TIMEOUT_S)

    def kill(self, node: int = 1) -> None:
        """``kill -9`` of a broker."""
        self._nodes.pop(node).kill()

    def start(self, node: int = 1) -> None:
        """Starts a broker that is down, on its ports and with its data; back in the cluster once this returns."""
        self._launch(node)
        self.wait_for(set(self._nodes))

    def create_topic(self, name: str, partitions: int = 3) -> None:
        """Makes a topic with a copy on each broker, up to three."""
        topic = NewTopic(name, partitions, min(3, len(self._ports)))
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.create_topics([topic])[name].result(30)

    def wait_for(self, nodes: set[int]) -> None:
        """Returns once exactly these brokers are in the cluster.

        Raises:
            RuntimeError: they are not in time, or one has ended; with its log.
        """
        until = time.monotonic() + START_TIMEOUT_S
        for node in nodes:
            while not self._is_among(node, nodes):
                self._refuse_ended()
                if time.monotonic() > until:
                    raise RuntimeError(f"broker {node} of {sorted(nodes)} did not come up in time:\n{self._logs()}")

    def _is_among(self, node: int, nodes: set[int]) -> bool:
        """Whether ``node`` itself answers and lists these brokers as the cluster's."""
        server = f"127.0.0.1:{self._ports[node]}"
        admin = AdminClient({"bootstrap.servers": server, "reconnect.backoff.max.ms": 200, "log_level": 0})
        try:
            return {broker.id for broker in admin.describe_cluster(request_timeout=2).result().nodes} == nodes
        except KafkaException:
            return False

    def close(self) -> None:
        """Kills what runs and removes its folder."""
        for node in self._nodes.values():
            node.kill()
        self._nodes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _format(self) -> None:
        """Writes each node's settings, and makes its folder one of this cluster."""
        formatting = []
        for node in self._ports:
            file = self.folder / f"{node}.properties"
            file.write_text("".join(f"{name}={value}\n" for name, value in self._settings(node).items()))
            command = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(file))
            formatting.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
            )
        for process in formatting:
            told, _ = process.communicate(timeout=START_TIMEOUT_S)
            if process.returncode:
                raise RuntimeError(f"Kafka could not format its storage:\n{told}")

    def _launch(self, node: int) -> None:
        properties = str(self.folder / f"{node}.properties")
        self._nodes[node] = Jvm(self._java("kafka.Kafka", properties), self.folder / f"{node}.log")

    def _java(self, main: str, *arguments: str) -> Sequence[str]:
        java = shutil.which("java")
        if java is None:
            raise RuntimeError("a real Kafka needs Java 17: apt-get install openjdk-17-jre-headless")
        options = (
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",  # as Kafka's own start script says
            # the optimizing compiler costs more time in a short test than it saves
            *([] if self._optimize else ["-XX:TieredStopAtLevel=1"]),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        )
        return (java, *options, "-cp", f"{kafka_jars()}/*", main, *arguments)

    def _refuse_ended(self) -> None:
        for node, jvm in self._nodes.items():
            if jvm.has_ended:
                raise RuntimeError(f"broker {node} has ended:\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(f"--- broker {node}\n{self.log(node)[-8000:]}" for node in self._ports)

    def _settings(self, node: int) -> dict[str, str]:
        copies = min(3, len(self._ports))
        enough = "2" if copies == 3 else "1"
        internal: dict[str, str] = {}
        for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            internal |= {f"{topic}.replication.factor": str(copies), f"{topic}.num.partitions": "1"}
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controllers.items()),
            "listeners": f"PLAINTEXT://127.0.0.1:{self._ports[node]},CONTROLLER://127.0.0.1:{self._controllers[node]}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._ports[node]}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / f"data-{node}"),
            "num.partitions": "3",
            "default.replication.factor": str(copies),
            "auto.create.topics.enable": "false",
            **internal,
            "transaction.state.log.min.isr": enough,
            "share.coordinator.state.topic.min.isr": "1",
            "min.insync.replicas": enough,
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.session.timeout.ms": "6000",
            "group.consumer.min.heartbeat.interval.ms": "100",
            "group.consumer.heartbeat.interval.ms": "500",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "controlled.shutdown.max.retries": "1",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.cleaner.dedupe.buffer.size": "8388608",  # 128 MB of heap by default
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "2",
        }
