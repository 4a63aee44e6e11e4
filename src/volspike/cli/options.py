"""What the commands that speak with Kafka have in common: which cluster, reached how.

What `serve` and `up` take alike: where to listen, what to serve, and what a client may do.

What the commands that work on a stream have in common: their flags, how they are stopped, what they tell.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from volspike.cli.screen import out, warn, working
from volspike.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from volspike.config import ServingSettings
    from volspike.models import Artifact
    from volspike.streams.clients import KafkaSettings
    from volspike.streams.metrics import WorkerMetrics, WorkerProgress
    from volspike.streams.state import MakeStage, WorkerPlan

Servers: TypeAlias = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="Brokers, host:port; else $KAFKA_BOOTSTRAP_SERVERS, else localhost:9092."),
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-option",
        envvar="KAFKA_OPTIONS",
        help="key=value of librdkafka, as for TLS and SASL: security.protocol=SASL_SSL …",
    ),
]


def cluster_settings(servers: str | None, options: list[str] | None, **topics: str | None) -> KafkaSettings:
    """The cluster from flags and environment; ``topics`` are fields of ``KafkaSettings``, None where not given.

    Raises:
        UsageError: an option that is none, or one that volspike sets; Kafka's client is not installed.
    """
    from volspike.config import settle
    from volspike.streams.clients import KafkaSettings, read_options

    given = read_options(options) if options else None
    return settle(KafkaSettings, {"bootstrap_servers": servers, "options": given, **topics}, os.environ, None, "kafka")


Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="An artifact's folder (env MODEL_PATH, or MODEL_VERSION for one among models/artifacts)."),
]
Variant: TypeAlias = Annotated[
    str | None,
    typer.Option(help="ml, or baseline: back to the z-score rule, whatever else is set (env MODEL_VARIANT)."),
]
Host: TypeAlias = Annotated[
    str | None, typer.Option(help="Address to listen on (env API_HOST; default 127.0.0.1: this machine alone).")
]
Port: TypeAlias = Annotated[int | None, typer.Option(help="Port; 0 takes a free one (env API_PORT; default 8000).")]
KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A file with the key that clients must tell in X-API-Key (or env API_KEY); no key is asked for without.",
        envvar="API_KEY_FILE",
    ),
]
RateLimit: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Requests a minute and client to /predict; 0: no limit (env RATE_LIMIT; default 1000)."),
]
Config: TypeAlias = Annotated[Path | None, typer.Option(help="A TOML file with a table named serving.")]


def serving_settings(config: Path | None, key_file: Path | None, **flags: Any) -> ServingSettings:
    """The settings of flags, environment and file.

    Raises:
        UsageError: one of them cannot be understood, or the key's file cannot be read.
    """
    from volspike.config import ServingSettings, settle

    flags |= {"api_key": None if key_file is None else _key_in(key_file)}
    return settle(ServingSettings, flags, os.environ, config, "serving")


def key_of(key_file: Path | None) -> str | None:
    """The key that a client tells: a file's, else the environment's, else none."""
    return os.environ.get("API_KEY") if key_file is None else _key_in(key_file)


def _key_in(file: Path) -> str:
    """The key, which is not repeated in any error."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"API key file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"API key file {file}: holds something else than ASCII characters") from error


Name: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--worker",
        help="This worker's name in its group; one that comes back under its name goes on at once. "
        "Host and process id when absent.",
    ),
]
CommitMs: TypeAlias = Annotated[
    float, typer.Option("--commit-ms", help="Milliseconds between commits at the least; more means less work.")
]
CommitRows: TypeAlias = Annotated[int, typer.Option("--commit-rows", help="Messages in a transaction at the most.")]
Finish: TypeAlias = Annotated[
    bool, typer.Option("--finish", help="Take what lies in the topic by now, and end; else go on until stopped.")
]
ColdStart: TypeAlias = Annotated[
    bool, typer.Option("--cold-start", help="Where the log no longer has the past, go on with empty state.")
]
MetricsPort: TypeAlias = Annotated[
    int, typer.Option("--metrics-port", help="Port that tells Prometheus the metrics; 0: none.")
]
MetricsHost: TypeAlias = Annotated[str, typer.Option("--metrics-host", help="Address that --metrics-port is of.")]


Model_worker: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the artifact that scores the rows, and says which they are; else models/artifacts/production, "
        "else the shipped one. With MODEL_VARIANT=baseline the z-score rule.",
        envvar="MODEL_PATH",
    ),
]


def model_of(wished: Path | None) -> Artifact:
    """The model at the end of the stream: the same for whoever makes its rows and for whoever scores them."""
    from volspike.config import ServingSettings, settle
    from volspike.models import Artifact
    from volspike.models.choice import model_to_serve, named_model, production_model

    settings = settle(ServingSettings, {"model": wished}, os.environ, None, "serving")
    return Artifact.load(model_to_serve(named_model(settings), production_model(settings), simulated=False))


def worker_name(name: str | None) -> str:
    """The name given, or one that no other worker has."""
    if name is None:
        return f"{socket.gethostname()}-{os.getpid()}"
    if not name.strip():
        raise UsageError("--worker must not be empty")
    return name


def refuse_nonsense(commit_ms: float, commit_rows: int, metrics_port: int) -> None:
    """Raises UsageError for figures that make no sense; a transaction that waits for 5 s would be near its end."""
    if not 0 <= commit_ms <= 5_000 or not 1 <= commit_rows <= 100_000:
        raise UsageError(
            f"--commit-ms lies in 0 to 5000 and --commit-rows in 1 to 100000, were {commit_ms:g} and {commit_rows}"
        )
    if not 0 <= metrics_port < 65_536:
        raise UsageError(f"--metrics-port is a port, was {metrics_port}")


def work(
    settings: KafkaSettings,
    plan: WorkerPlan,
    make_stage: MakeStage,
    metrics_host: str,
    metrics_port: int,
    verb: str,
    metrics: WorkerMetrics | None = None,
) -> WorkerProgress:
    """Runs a worker until it is done or told to stop, with a line that says how it goes."""
    from volspike.streams.metrics import WorkerMetrics
    from volspike.streams.transactions import KafkaLinks
    from volspike.streams.worker import Worker

    metrics = metrics or WorkerMetrics()
    with (
        stopping() as stop,
        working(f"{verb}: joining {plan.group}") as say,
        exposed(metrics.registry, metrics_host, metrics_port),
    ):

        def show(at: WorkerProgress) -> None:
            parts = ",".join(map(str, at.partitions)) or "none"
            say(
                f"{verb}: {at.messages:,} taken, {at.results:,} written, {at.rate:,.0f}/s, lag {at.lag:,}, "
                f"partitions {parts}"
            )

        progress = Worker(KafkaLinks(settings), plan, make_stage, stop=stop, show=show, metrics=metrics).run()
    out.print(
        f"{progress.messages:,} messages of {plan.topic_in} → {progress.results:,} of {plan.topic_out} "
        f"in {progress.transactions:,} transactions, {progress.seconds:.1f} s ({progress.rate:,.0f}/s)"
    )
    if progress.recovered:
        out.print(f"{progress.recovered:,} messages read once more to rebuild state")
    if progress.aborts:
        warn(f"{progress.aborts:,} transactions were taken back and done again")
    if progress.dead:
        warn(f"{progress.dead:,} messages could not be read and went to {settings.topic_dead}")
    return progress


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one interrupts at once."""
    told = Event()

    def tell(number: int, _: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()
        del number

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """Tells the metrics on a port of their own; on none for 0.

    Raises:
        UsageError: the address cannot be listened on.
    """
    if port == 0:
        yield
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port} on {host} cannot be listened on: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
