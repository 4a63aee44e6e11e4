"""Properties of the Compose files, checked without an engine."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.docker.compose import DOCKER, DOCKERFILES, FILES, Service, is_lasting, read, services, words
from tests.scripts import script
from volspike.cli.app import load_command
from volspike.config import ServingSettings
from volspike.streams.clients import KafkaSettings

SETUPS = {"one broker": services(FILES[0]), "three brokers": services(*FILES)}
EACH = [pytest.param(setup[name], id=f"{title}: {name}") for title, setup in SETUPS.items() for name in setup]
LASTING = [param for param in EACH if is_lasting(param.values[0])]  # type: ignore[arg-type]
BROKERS = ("kafka", "kafka-2", "kafka-3")

# What the images of others have; ours are Debian with Python, and volspike.
PROGRAMS = {
    "apache/kafka": {"/opt/kafka/bin/kafka-metadata-quorum.sh"},
    "prom/prometheus": {"wget"},
    "grafana/grafana": {"wget"},
    "ghcr.io/mlflow/mlflow": {"python", "mlflow", "chown"},
    "volspike-api": {"python", "volspike"},
    "volspike-ingestor": {"python", "volspike", "find", "grep"},
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_compose_files_keep_the_specification(file: Path) -> None:
    """The files match the schema of the Compose specification."""
    command = [script("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own command
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", EACH)
def test_images_are_pinned(service: Service) -> None:
    """Third-party images have a full version, and our own are built locally."""
    image, _, tag = service["image"].rpartition(":")
    if "build" in service:
        assert (image, tag) in {("volspike-api", "local"), ("volspike-ingestor", "local")}
    else:
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]


@pytest.mark.parametrize("service", EACH)
def test_services_have_no_more_than_they_need(service: Service) -> None:
    """No capabilities, no privilege escalation, a read-only root file system, and limits."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert "privileged" not in service


@pytest.mark.parametrize("service", LASTING)
def test_what_lasts_is_watched_and_is_not_root(service: Service) -> None:
    """Every long-running service has a health check and a numeric user other than root."""
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) >= 0
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_the_only_root_changes_an_owner() -> None:
    """One service runs as root: it exits at once, has no network, and only the chown capability."""
    roots = [service for service in SETUPS["one broker"].values() if service["user"].startswith("0:")]
    assert [(root["command"][0], root["network_mode"], root["cap_add"]) for root in roots] == [
        ("chown", "none", ["CHOWN"])
    ]
    assert not is_lasting(roots[0])


@pytest.mark.parametrize("service", EACH)
def test_ports_are_of_loopback(service: Service) -> None:
    """Ports are published on this machine only."""
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_ports_are_those_that_users_know() -> None:
    """Kafka 9092, MLflow 5001, API 8000, Prometheus 9090, Grafana 3000; two more brokers on their own ports."""
    one = {name: [int(port.split(":")[1]) for port in s.get("ports", [])] for name, s in SETUPS["one broker"].items()}
    known = {"kafka": [9092], "mlflow": [5001], "api": [8000], "prometheus": [9090], "grafana": [3000]}
    assert {name: ports for name, ports in one.items() if ports} == known
    three = [port.split(":")[1] for s in SETUPS["three brokers"].values() for port in s.get("ports", [])]
    assert len(three) == len(set(three)) == 7


@pytest.mark.parametrize("service", EACH)
def test_secrets_come_from_outside(service: Service) -> None:
    """Names and passwords are variables; Grafana's have no default, and a missing one is an error."""
    for name, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|ADMIN_USER", name):
            assert re.fullmatch(r"\$\{GRAFANA_(USER|PASSWORD):\?[^}]+\}", value), name


def test_the_example_of_settings_is_complete() -> None:
    """``.env.example`` contains exactly the variables that the files use, and no password."""
    texts = [file.read_text() for file in FILES]
    passed_on = r"(?m)^ {6}([A-Z_]+):$"  # a variable without a value comes from the caller's environment
    used = {name for text in texts for name in (*re.findall(r"\$\{(\w+)", text), *re.findall(passed_on, text))}
    lines = re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text())
    assert {name for name, _ in lines} == used
    assert {name: value for name, value in lines if name.startswith("GRAFANA")} == {
        "GRAFANA_USER": "",
        "GRAFANA_PASSWORD": "",
    }


@pytest.mark.parametrize("service", [param for param in EACH if "build" in param.values[0]])  # type: ignore[operator]
def test_commands_are_volspikes(service: Service) -> None:
    """Each command is a subcommand of volspike with existing flags."""
    program, name, *rest = [_filled(word) for word in words(service["command"])]
    assert program == "volspike"
    known = {flag for param in load_command(name).params for flag in (*param.opts, *param.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize("service", LASTING)
def test_health_checks_use_what_the_image_has(service: Service) -> None:
    """Each health check uses programs of its image; otherwise a healthy service would be reported as unhealthy."""
    image = service["image"].rpartition(":")[0]
    assert _programs(service["healthcheck"]["test"]) <= PROGRAMS[image]


def test_topics_are_the_pipelines() -> None:
    """The topics in the files are volspike's default topics."""
    own = KafkaSettings()
    known = {"KAFKA_TOPIC_RAW": own.topic_raw, "KAFKA_TOPIC_FEATURES": own.topic_features}
    for setup in SETUPS.values():
        for service in setup.values():
            named = {k: v for k, v in service.get("environment", {}).items() if k.startswith("KAFKA_TOPIC_")}
            assert named in ({}, known)
    told = {name for file in FILES for name in re.findall(r"ticks\.[a-z]+", file.read_text())}
    assert told == set(known.values())


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_workers_wait_for_topics_and_topics_for_brokers(setup: dict[str, Service]) -> None:
    """Services start after the topics exist, and topics are created after all brokers are healthy."""
    brokers = [name for name in BROKERS if name in setup]
    for name in ("ingestor", "featurizer", "predictor"):
        assert setup[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
        assert setup[name]["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == ",".join(f"{b}:19092" for b in brokers)
    assert setup["topics"]["depends_on"] == {name: {"condition": "service_healthy"} for name in brokers}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_kafka_keeps_its_own_metadata(setup: dict[str, Service]) -> None:
    """Brokers are also controllers, share voters and cluster id, and need no ZooKeeper."""
    brokers = {name: setup[name]["environment"] for name in BROKERS if name in setup}
    voters = ",".join(f"{number}@{name}:9093" for number, name in enumerate(brokers, 1))
    for number, (name, told) in enumerate(brokers.items(), 1):
        assert (told["KAFKA_NODE_ID"], told["KAFKA_PROCESS_ROLES"]) == (str(number), "broker,controller")
        assert told["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
        assert f"INSIDE://{name}:19092" in told["KAFKA_ADVERTISED_LISTENERS"]
        outside = re.findall(r"OUTSIDE://[a-z]*:(\d+)", told["KAFKA_LISTENERS"] + told["KAFKA_ADVERTISED_LISTENERS"])
        assert [f"127.0.0.1:{port}:{port}" for port in outside] == setup[name]["ports"] * 2
    assert len({told["CLUSTER_ID"] for told in brokers.values()}) == 1
    assert len(base64.urlsafe_b64decode(brokers["kafka"]["CLUSTER_ID"] + "==")) == 16
    assert not any("zookeeper" in f"{name} {service}".lower() for name, service in setup.items())


def test_brokers_differ_in_name_and_copies_only() -> None:
    """All brokers have the same settings; each message has three copies, at least two in sync."""
    three = SETUPS["three brokers"]
    own = ("environment", "ports", "volumes")
    plain = [{key: value for key, value in three[name].items() if key not in own} for name in BROKERS]
    assert plain[0] == plain[1] == plain[2]
    names = r"NODE_ID|LISTENERS$"
    told = [{k: v for k, v in three[n]["environment"].items() if not re.search(names, k)} for n in BROKERS]
    assert told[0] == told[1] == told[2]
    for name, value in told[0].items():
        if name.endswith("REPLICATION_FACTOR"):
            assert value == "3", name
        if name.endswith(("MIN_ISR", "MIN_INSYNC_REPLICAS")):
            assert value == "2", name
    one = {name for name in SETUPS["one broker"]["kafka"]["environment"] if re.search(r"REPLICA|ISR", name)}
    assert one <= told[0].keys()


def test_kafka_is_the_version_that_tests_run() -> None:
    """The image has the Kafka version that the tests run."""
    pom = (DOCKER.parent / "tests/streams/brokers/pom.xml").read_text()
    version = re.search(r"<kafka\.version>(.+?)<", pom)
    assert version is not None
    images = {SETUPS["three brokers"][name]["image"] for name in BROKERS}
    assert images == {f"apache/kafka:{version[1]}"}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_nothing_outside_the_repository_is_needed(setup: dict[str, Service]) -> None:
    """By default only tracked files are mounted: Docker creates a missing folder, as root."""
    for service in setup.values():
        for volume in service.get("volumes", []):
            source = _filled(volume).split(":")[0]
            assert not source.startswith(("/", "~", ".."))
            assert not source.startswith(".") or any(file.is_file() for file in (DOCKER / source).rglob("*"))


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_models_are_those_of_a_folder_if_one_is_named(setup: dict[str, Service]) -> None:
    """Each service that loads a model has the one that the image has, and reads those of ``MODELS_FOLDER``."""
    for name in ("api", "featurizer", "predictor"):
        assert setup[name]["environment"]["MODEL_PATH"] == "${MODEL_PATH:-/opt/volspike/models/default}"
        assert setup[name]["volumes"] == ["${MODELS_FOLDER:-models}:/models:ro"]


@pytest.mark.parametrize("setup", [[FILES[0]], FILES], ids=SETUPS)
def test_volumes_are_named(setup: list[Path]) -> None:
    """Persistent data is in a named volume; files of the repository are mounted read-only."""
    declared = {name for file in setup for name in read(file)["volumes"]}
    used = [
        _filled(volume).split(":") for service in services(*setup).values() for volume in service.get("volumes", [])
    ]
    named = {volume[0] for volume in used if not volume[0].startswith(".")}
    assert named == declared
    assert all(volume[2:] == ["ro"] for volume in used if volume[0].startswith("."))


def test_prometheus_watches_what_is_served() -> None:
    """Every scrape target is a service and the port on which it exports metrics."""
    config = read(DOCKER / "prometheus/prometheus.yml")
    targets: dict[str, int] = {}
    for job in config["scrape_configs"]:
        for static in job.get("static_configs", []):
            targets |= {host: int(port) for host, port in (target.split(":") for target in static["targets"])}
        for names in job.get("dns_sd_configs", []):
            targets |= dict.fromkeys(names["names"], names["port"])
    assert targets == {"localhost": 9090, "api": 8000, "ingestor": 9464, "featurizer": 9464, "predictor": 9464}
    for worker in ("ingestor", "featurizer", "predictor"):
        service = SETUPS["one broker"][worker]
        flags = [_filled(word) for word in words(service["command"])]
        assert flags[flags.index("--metrics-port") + 1] == "9464"
        assert flags[flags.index("--metrics-host") + 1] == "0.0.0.0"  # noqa: S104  of the container
        assert worker == "ingestor" or "127.0.0.1:9464/metrics" in service["healthcheck"]["test"][-1]


def test_the_local_prometheus_watches_the_default_port() -> None:
    """The configuration without containers scrapes the API's default address with the job name of the alerts."""
    (job,) = read(DOCKER / "prometheus/local.yml")["scrape_configs"]
    settings = ServingSettings()
    assert job["job_name"] == "api"
    assert job["static_configs"] == [{"targets": [f"{settings.host}:{settings.port}"]}]


def test_the_api_reads_results_where_models_are() -> None:
    """The API reads the results of training and drift from the mounted models folder."""
    api = SETUPS["one broker"]["api"]
    (place,) = [_filled(volume).split(":")[1] for volume in api["volumes"]]
    assert api["environment"]["RESULTS_PATH"] == f"{place}/{ServingSettings().results.name}"


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    """The data source is the service, on its port; every panel of the provisioned dashboard uses it."""
    (source,) = read(DOCKER / "grafana/datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = read(DOCKER / "grafana/dashboards/dashboard.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SETUPS["one broker"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    board = json.loads((DOCKER / "grafana/dashboards/crypto-volatility.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


@pytest.mark.parametrize(("lag", "status"), [("0.0", 0), ("100000.0", 0), ("100001.0", 1)])
def test_a_worker_that_falls_behind_is_ill(lag: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers' check sums the lags of all partitions and fails above the limit."""
    told = f'# HELP stream_lag_messages x\nstream_lag_messages{{partition="0"}} {lag}\nstream_partitions 1.0\n'
    assert _checked(SETUPS["one broker"]["featurizer"], told, monkeypatch) == status


def test_images_of_services_are_built_from_their_files() -> None:
    """Each Dockerfile builds one image, and each of our images has one."""
    built = {
        (s["image"].split(":")[0], s["build"]["dockerfile"]) for s in SETUPS["one broker"].values() if "build" in s
    }
    assert built == {(f"volspike-{file.suffix[1:]}", f"docker/{file.name}") for file in DOCKERFILES}


def _checked(service: Service, told: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    class Answer:
        @staticmethod
        def read() -> bytes:
            return told.encode()

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: Answer())
    with pytest.raises(SystemExit) as ended:
        exec(service["healthcheck"]["test"][-1], {})  # noqa: S102  our own check
    return int(ended.value.code or 0)


def _filled(text: str) -> str:
    """The text with the default values of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def _programs(test: list[str]) -> set[str]:
    """The programs that a check starts, except ``sh``, which every image has."""
    if test[0] == "CMD":
        return {test[1]}
    parts = re.split(r"&&|\|", test[1])
    return {next(word for word in shlex.split(part) if "=" not in word) for part in parts}
