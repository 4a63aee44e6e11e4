"""Options that several commands share: the HTTP server, the Kafka cluster, and the Kafka workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

from volspike.cli.screen import out, warn, working
from volspike.errors import UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from volspike.config import ServingSettings
    from volspike.datasets.feature_file import SuppliedFacts
    from volspike.features import Every
    from volspike.labels import SpikeDefinition
    from volspike.market import Profile
    from volspike.models import Artifact
    from volspike.models.alert_thresholds import AlertThresholds
    from volspike.monitoring.quiet import QuietHours
    from volspike.streams.clients import KafkaSettings
    from volspike.streams.metrics import WorkerMetrics, WorkerProgress
    from volspike.streams.state import MakeStage, WorkerPlan

Spike: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--spike",
        help="What counts as a spike: jump:2 (twice the volatility of the trailing hour), level:90 (percentile of the "
        "trailing 24 h), fixed:VALUE, or percentile:90 (of the training rows).",
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(help="Random seed; the same seed gives the same result.", min=0, max=2**32 - 1)
]
Results: TypeAlias = Annotated[
    Path, typer.Option(help="Folder in which the server finds the last results for its metrics.")
]
Percentile: TypeAlias = Annotated[float, typer.Option(help="Percentile of future volatility that defines τ.")]
SessionGap: TypeAlias = Annotated[float, typer.Option(help="Seconds of silence that end a session.")]
Group: TypeAlias = Annotated[str, typer.Option(help="Consumer group of the workers that share the partitions.")]
Products: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--pair", "--pairs", help="Products, as BTC-USD or binance:BTC-USDT (default: BTC-USD)."),
]
TrainingPercentile: TypeAlias = Annotated[
    float, typer.Option(help="Percentile of the training rows' future volatility that defines τ.", min=0, max=100)
]
Columns: TypeAlias = Annotated[
    list[str] | None, typer.Option(help="Features to train on, or all (default: those that suit the file).")
]
Venue: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--venue", help="Venue of products whose name states none, as binance:BTC-USDT does (default: coinbase)."
    ),
]
Timezone: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--timezone",
        help="Zone of times that state none, such as Europe/Berlin (default: UTC); read across clock changes.",
    ),
]
RowRate: TypeAlias = Annotated[
    str | None, typer.Option("--every", help="Row rate (tick or 1s) of a file whose metadata is missing.")
]
KindsOfTicks: TypeAlias = Annotated[
    str | None,
    typer.Option("--profile", help="Profile (ticker, ticker+trade or trade) of a file whose metadata is missing."),
]
Origin: TypeAlias = Annotated[
    str | None, typer.Option("--origin", help="Origin (real or simulated) of a file whose metadata is missing.")
]
Horizon: TypeAlias = Annotated[
    int, typer.Option("--horizon", help="Seconds of the future that a label covers: 60, 300, 900 or 3600.")
]


def is_simulated(origin: str | None) -> bool | None:
    """Whether ``--origin`` names a simulated market; None if it is not given."""
    if origin not in (None, "real", "simulated"):
        raise UsageError(f"--origin must be real or simulated, got {origin!r}")
    return None if origin is None else origin == "simulated"


def every_of(text: str) -> Every:
    """The row rate that ``--every`` names."""
    from volspike.features import Every

    if text not in set(Every):
        raise UsageError(f"--every must be one of {', '.join(Every)}, got {text!r}")
    return Every(text)


def profile_of(text: str) -> Profile | None:
    """The profile that ``--profile`` names; None for ``auto``."""
    from volspike.market import Profile

    if text == "auto":
        return None
    if text not in set(Profile):
        raise UsageError(f"--profile must be auto or one of {', '.join(Profile)}, got {text!r}")
    return Profile(text)


def supplied_facts(every: str | None, profile: str | None, origin: str | None) -> SuppliedFacts:
    """The facts that ``--every``, ``--profile`` and ``--origin`` state for a file without metadata.

    Raises:
        UsageError: an unknown value.
    """
    from volspike.datasets.feature_file import SuppliedFacts
    from volspike.market import Profile

    if profile is not None and profile not in set(Profile):
        raise UsageError(f"--profile must be one of {', '.join(Profile)}, got {profile!r}")
    return SuppliedFacts(
        None if every is None else every_of(every), None if profile is None else Profile(profile), is_simulated(origin)
    )


def spike_definition(spike: str | None, percentile: float, tau: float | None = None) -> SpikeDefinition:
    """The definition that ``--spike`` names, otherwise the fixed ``tau``, otherwise the percentile.

    Raises:
        UsageError: an unknown definition, or a value out of range.
    """
    from volspike.labels import SpikeDefinition

    if spike is not None:
        return SpikeDefinition.parse(spike)
    return SpikeDefinition.parse(f"percentile:{percentile}" if tau is None else f"fixed:{tau}")


_FILE_ENDINGS = frozenset((".csv", ".tsv", ".json", ".ndjson", ".html", ".pdf", ".parquet", ".png", ".txt", ".xlsx"))


def require_file(option: str, path: Path | None, *endings: str) -> None:
    """Refuses a file of another kind than the command writes, before it begins; a name without an ending is accepted.

    Raises:
        UsageError: the name ends otherwise.
    """
    if path is not None and path.suffix.lower() not in {"", *endings}:
        kinds, names = (" or ".join(each) for each in ([ending[1:] for ending in endings], endings))
        raise UsageError(f"{option} {path}: this command writes {kinds} only; name a file that ends in {names}")


def require_folder(option: str, path: Path | None) -> None:
    """Refuses the name of a file where a command writes a folder, before it begins.

    Raises:
        UsageError: the name ends as that of a file.
    """
    if path is not None and path.suffix.lower() in _FILE_ENDINGS and not path.is_dir():
        raise UsageError(f"{option} {path}: this command writes several files; name a folder")


Servers: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", help="Brokers, host:port (env KAFKA_BOOTSTRAP_SERVERS; default localhost:9092)."
    ),
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-option",
        envvar="KAFKA_OPTIONS",
        help="A librdkafka setting as key=value, for example for TLS and SASL: security.protocol=SASL_SSL.",
    ),
]


def require_amount(option: str, number: float) -> None:
    """Refuses a negative or infinite number."""
    if not 0 <= number < float("inf"):
        raise UsageError(f"{option} must be a number of at least 0, got {number:g}")


def instant(option: str, text: str) -> int:
    """The time in ns UTC that an option names."""
    from volspike.market import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def check_port(metrics_port: int) -> None:
    """Refuses a value of ``--metrics-port`` that is no port."""
    if not 0 <= metrics_port < 65_536:
        raise UsageError(f"--metrics-port takes 0 to 65535, got {metrics_port}")


def check_writable(folder: Path, option: str) -> None:
    """Create a folder for recordings and write a file in it for a moment.

    Raises:
        UsageError: that is not possible.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b" ")
    except OSError as error:
        raise UsageError(
            f"{option} {folder}: cannot write there ({error.strerror or error}); name another folder"
        ) from error


def cluster_settings(servers: str | None, options: list[str] | None, **topics: str | None) -> KafkaSettings:
    """The cluster from options and environment; ``topics`` are fields of ``KafkaSettings``, None if not given.

    Raises:
        UsageError: an unknown option, or one that volspike sets itself; or Kafka's client is not installed.
    """
    from volspike.config import load_settings
    from volspike.streams.clients import KafkaSettings, read_options

    given = read_options(options) if options else None
    return load_settings(
        KafkaSettings, {"bootstrap_servers": servers, "options": given, **topics}, os.environ, None, "kafka"
    )


Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Folder of an artifact (env MODEL_PATH, or MODEL_VERSION for a folder in models/artifacts)."),
]
Variant: TypeAlias = Annotated[
    str | None,
    typer.Option(help="ml, or baseline to serve the z-score rule whatever else is set (env MODEL_VARIANT)."),
]
Host: TypeAlias = Annotated[
    str | None, typer.Option(help="Address to listen on (env API_HOST; default 127.0.0.1: this machine only).")
]
Port: TypeAlias = Annotated[int | None, typer.Option(help="Port; 0 takes a free one (env API_PORT; default 8000).")]
AllowedHosts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        help="Name under which the server is addressed, in addition to localhost and IP addresses; *.example.org "
        "allows all names below, * any (env ALLOWED_HOSTS, separated by spaces).",
        envvar="ALLOWED_HOSTS",
        show_envvar=False,
    ),
]
RootPath: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Prefix under which a proxy serves the pages, such as /volspike (env ROOT_PATH)."),
]
KeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="File with the key that clients must send in X-API-Key (or env API_KEY); without one, no key is required.",
        envvar="API_KEY_FILE",
    ),
]
KeepDays: TypeAlias = Annotated[
    float, typer.Option(help="Delete recorded tapes (and stored predictions) older than this many days; 0 keeps all.")
]
RateLimit: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Requests to /predict per client and minute; 0 for no limit (env RATE_LIMIT; default 1000)."),
]
Config: TypeAlias = Annotated[Path | None, typer.Option(help="TOML file with a table named serving.")]
AlertConfig: TypeAlias = Annotated[
    Path | None, typer.Option("--config", help="TOML file with the table alerts, and for `volspike up` serving.")
]
Receivers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--alert",
        "--alert-url",
        help="Receiver of alerts as an Apprise URL (mailto://, slack://, json://, …; env ALERT_URLS, separated by "
        "spaces).",
    ),
]
QuietHoursOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--quiet-hours",
        help="Window in which no alert is sent, as 22:00-07:00 or 'mon-fri 22:00-07:00 Europe/Berlin' (default: every "
        "day, UTC); one summary follows (env QUIET_HOURS, separated by ;).",
    ),
]
AlertThresholdOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--alert-threshold",
        help="Probability from which a product alerts instead of the model's threshold, as BTC-USD=0.4, binance:*=0.5 "
        "or 0.5 for all (env ALERT_THRESHOLDS, separated by spaces).",
    ),
]


def serving_settings(config: Path | None, key_file: Path | None, **flags: Any) -> ServingSettings:
    """The settings from options, environment and file.

    Raises:
        UsageError: a value cannot be read, or the key's file cannot.
    """
    from volspike.config import ServingSettings, load_settings

    flags |= {"api_key": None if key_file is None else _key_in(key_file)}
    return load_settings(ServingSettings, flags, os.environ, config, "serving")


class Alerting(NamedTuple):
    """The receivers of alerts as Apprise URLs, which are secrets, the quiet hours, and the thresholds of products."""

    receivers: tuple[str, ...]
    quiet_hours: tuple[QuietHours, ...]
    thresholds: AlertThresholds

    def __repr__(self) -> str:
        return f"Alerting({len(self.receivers)} receivers, {self.quiet_hours!r}, {self.thresholds!r})"


def alerting(
    config: Path | None,
    receivers: list[str] | None,
    quiet_hours: list[str] | None = None,
    thresholds: list[str] | None = None,
) -> Alerting:
    """The settings of alerts from options, environment and file.

    Raises:
        UsageError: a value cannot be read.
    """
    from volspike.config import AlertSettings, load_settings
    from volspike.models.alert_thresholds import AlertThresholds
    from volspike.monitoring.alerts import check_url
    from volspike.monitoring.quiet import QuietHours

    flags = {"receivers": receivers or None, "quiet_hours": quiet_hours or None, "thresholds": thresholds or None}
    settings = load_settings(AlertSettings, flags, os.environ, config, "alerts")
    urls = tuple(url.reveal() for url in settings.receivers)
    for url in urls:
        check_url(url)
    return Alerting(
        urls,
        tuple(map(QuietHours.parse, settings.quiet_hours)),
        AlertThresholds.parse(settings.thresholds),
    )


def key_of(key_file: Path | None) -> str | None:
    """The key that a client sends: from a file, otherwise from the environment, otherwise None."""
    return os.environ.get("API_KEY") if key_file is None else _key_in(key_file)


def _key_in(file: Path) -> str:
    """The key; no error message repeats it."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"API key file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"API key file {file}: contains characters outside ASCII") from error


Name: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--worker",
        help="Name of this worker in its group; a worker that restarts under its name resumes at once. "
        "Default: host and process id.",
    ),
]
CommitMs: TypeAlias = Annotated[
    float, typer.Option("--commit-ms", help="Least milliseconds between commits; more means less work.")
]
CommitRows: TypeAlias = Annotated[int, typer.Option("--commit-rows", help="Most messages in a transaction.")]
Finish: TypeAlias = Annotated[
    bool, typer.Option("--finish", help="Process what is in the topic now, then exit; otherwise run until stopped.")
]
ColdStart: TypeAlias = Annotated[
    bool, typer.Option("--cold-start", help="If the log no longer holds the past, continue with empty state.")
]
MetricsPort: TypeAlias = Annotated[
    int, typer.Option("--metrics-port", help="Port that serves metrics to Prometheus; 0 for none.")
]
MetricsHost: TypeAlias = Annotated[str, typer.Option("--metrics-host", help="Address for --metrics-port.")]


StreamModel: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the artifact that scores the rows and defines their features (default: "
        "models/artifacts/production, otherwise the shipped model; with MODEL_VARIANT=baseline the z-score rule).",
        envvar="MODEL_PATH",
    ),
]


def stream_model(path: Path | None) -> Artifact:
    """The model at the end of the stream: the featurizer makes its rows, the predictor scores them."""
    from volspike.config import ServingSettings, load_settings
    from volspike.models import Artifact
    from volspike.models.choice import model_to_serve, named_model, production_model

    settings = load_settings(ServingSettings, {"model": path}, os.environ, None, "serving")
    return Artifact.load(model_to_serve(named_model(settings), production_model(settings), simulated=False))


def worker_name(name: str | None) -> str:
    """The name given, or a unique one."""
    if name is None:
        return f"{socket.gethostname()}-{os.getpid()}"
    if not name.strip():
        raise UsageError("--worker must not be empty")
    return name


def check_worker_options(commit_ms: float, commit_rows: int, metrics_port: int) -> None:
    """Raises UsageError for values out of range; a transaction that waits for 5 s is close to its timeout."""
    if not 0 <= commit_ms <= 5_000 or not 1 <= commit_rows <= 100_000:
        raise UsageError(
            f"--commit-ms takes 0 to 5000 and --commit-rows 1 to 100000, got {commit_ms:g} and {commit_rows}"
        )
    check_port(metrics_port)


def run_worker(
    settings: KafkaSettings,
    plan: WorkerPlan,
    make_stage: MakeStage,
    metrics_host: str,
    metrics_port: int,
    verb: str,
    metrics: WorkerMetrics | None = None,
) -> WorkerProgress:
    """Runs a worker until it is finished or stopped, with a progress line."""
    from volspike.streams.metrics import WorkerMetrics
    from volspike.streams.transactions import KafkaClients
    from volspike.streams.worker import Worker

    metrics = metrics or WorkerMetrics()
    with (
        stopping() as stop,
        working(verb) as say,
        metrics_server(metrics.registry, metrics_host, metrics_port),
    ):
        say(f"joining {plan.group}")

        def show(at: WorkerProgress) -> None:
            parts = ",".join(map(str, at.partitions)) or "none"
            say(f"{at.messages:,} taken, {at.results:,} written, {at.rate:,.0f}/s, lag {at.lag:,}, partitions {parts}")

        progress = Worker(KafkaClients(settings), plan, make_stage, stop=stop, show=show, metrics=metrics).run()
    out.print(
        f"{progress.messages:,} messages of {plan.topic_in} → {progress.results:,} of {plan.topic_out} "
        f"in {progress.transactions:,} transactions, {progress.seconds:.1f} s ({progress.rate:,.0f}/s)"
    )
    if progress.recovered:
        out.print(f"{progress.recovered:,} messages read again to rebuild state")
    if progress.aborts:
        warn(f"{progress.aborts:,} transactions were aborted and repeated")
    if progress.dead:
        warn(f"{progress.dead:,} unreadable messages were sent to {settings.topic_dead}")
    return progress


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM has arrived; a second signal interrupts at once."""
    stop = Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with handling(on_signal, signal.SIGINT, signal.SIGTERM):
        yield stop.is_set


@contextlib.contextmanager
def handling(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handles these signals with ``handler`` until the block ends."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def on_stop_signals(action: Callable[[], object]) -> None:
    """Calls ``action`` in the running event loop at SIGINT and SIGTERM; on Windows at Ctrl-C and Ctrl-Break."""
    import asyncio

    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is None:
            continue
        try:
            loop.add_signal_handler(number, action)
        except NotImplementedError:  # the event loop of Windows has none
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))


@contextlib.contextmanager
def metrics_server(registry: CollectorRegistry, host: str, port: int) -> Iterator[None]:
    """Serves the metrics on a port of their own; port 0 serves none.

    Raises:
        UsageError: the port cannot be opened.
    """
    if port == 0:
        yield
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UsageError(f"cannot listen on --metrics-port {port} of {host}: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
