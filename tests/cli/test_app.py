"""All commands under one name: help, version, and how a wrong call ends."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import volspike as package
from tests.cli.command_line import USAGE, Run, assert_refused, words
from volspike.cli import app

# the flags of the earlier system are promises; a command may have more
OPTIONS = {
    "replay": "raw out windows every profile add-labels label-threshold-percentile label-gap-threshold-seconds "
    "compare compare-labels",
    "label": "features output threshold-percentile gap-threshold-seconds tau",
    "consolidate": "features output splits split-method threshold-percentile",
    "train": "features models split-method folds columns label-percentile artifacts seed",
    "infer": "model features mode n-samples",
    "serve": "model variant host port api-key-file rate-limit log-level config",
    "load-test": "url requests concurrent rate rows timeout output api-key-file",
    "simulate": "out pair minutes seed start",
    "convert": "raw out",
    "import": "out format product columns timezone",
    "demo": "data host port once",
    "topics": "partitions replication bootstrap-servers kafka-option",
    "replay-to-kafka": "input topic speed max-messages bootstrap-servers kafka-option",
    "consume-check": "topic min timeout list info bootstrap-servers kafka-option",
}
EXIT_STATUS = (
    "Exit status: 0 success, 1 `doctor` found a problem or `alert-test` failed, 2 wrong usage, 3 bad data, "
    "4 model and data do not match, or Kafka fails."
)
SEED_COMMANDS = [
    'replay --raw "../shared/data/coinbase/*.ndjson" --out data/processed/features.parquet --add-labels',
    "train --features data/processed/features.parquet --models baseline logistic random_forest",
    "infer --model models/artifacts/rf --features data/processed/features.parquet --mode benchmark --n-samples 1000",
    "serve --model models/artifacts/random_forest --port 8000",
    "load-test --url http://127.0.0.1:8000 --requests 1000 --concurrent 10 --output docs/load_test_results.json",
    "replay --raw a.ndjson b.ndjson --out f.parquet --windows 30 60 300 --add_labels",
    "replay --raw a.ndjson --out f.parquet --label_threshold_percentile 90 --label_gap_threshold_seconds 300",
    "label --features f.parquet --output g.parquet --threshold_percentile 95",
    "consolidate --splits --split_method time_based",
    "consume-check --topic ticks.raw --min 100",
    "replay-to-kafka --input a.ndjson --topic ticks.raw --bootstrap_servers localhost:9092 --speed 10 --max_messages 5",
    "train --features f.parquet --models all --split_method stratified",
]


COMMANDS: dict[str, Any] = {name: app.load_command(name) for name in app.COMMANDS}


def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen on which no option's name is cut short."""
    monkeypatch.setenv("COLUMNS", "120")


def test_help_lists_every_command(volspike: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """``volspike --help`` names each command with what it does, and what an exit status means."""
    wide(monkeypatch)
    outcome = volspike("--help")
    shown = words(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    assert set(OPTIONS) <= set(COMMANDS)
    for name, command in COMMANDS.items():
        first, *_ = command.help.split("\n\n")
        assert f"{name} {words(first)}" in shown
    assert EXIT_STATUS in shown
    assert volspike("-h") == outcome


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_options_and_an_example(
    name: str, volspike: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help lists every option with its complete sentence, followed by a command to copy."""
    wide(monkeypatch)
    outcome = volspike(name, "--help")
    shown = words(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    options = {option.opts[0]: option.help for option in COMMANDS[name].params}
    assert {f"--{option}" for option in OPTIONS.get(name, "").split()} <= set(options)
    for flag, sentence in options.items():
        assert f"{flag} " in shown or f"{flag}," in shown
        assert sentence
        assert words(sentence) in shown
    assert words(COMMANDS[name].epilog) in shown


@pytest.mark.parametrize("line", [f"{name} EXAMPLE" for name in COMMANDS] + SEED_COMMANDS)
def test_examples_are_read(line: str) -> None:
    """The example of each help, and the commands that the earlier system's users know, are what volspike reads."""
    name, *arguments = shlex.split(line)
    command = COMMANDS[name]
    if arguments == ["EXAMPLE"]:
        example, program, named, *arguments = shlex.split(command.epilog)
        assert (example, program, named) == ("Example:", "volspike", name)
    context = command.make_context(name, arguments)
    names = {flag: option.name for option in command.params for flag in option.opts}
    flags = [part.partition("=")[0].replace("_", "-") for part in arguments if part.startswith("--")]
    assert [flag for flag in flags if context.get_parameter_source(names[flag]).name != "COMMANDLINE"] == []


def test_version_is_the_packages(volspike: Run) -> None:
    """``volspike --version`` prints it on one line."""
    assert volspike("--version") == (0, f"volspike {package.__version__}\n", "")


def test_without_a_command_there_is_help(volspike: Run) -> None:
    """``volspike`` alone shows the help, says nothing else, and ends as a wrong call."""
    outcome = volspike()
    assert "[OPTIONS] COMMAND [ARGS]..." in outcome.out
    assert (outcome.status, outcome.err) == (USAGE, "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("reply", ["No such command 'reply'", "volspike --help"]),
        ("--verbose", ["No such option: --verbose", "volspike --help"]),
        ("replay --raw a.ndjson --out f.parquet --wat", ["No such option: --wat", "volspike replay --help"]),
        ("replay --out f.parquet", ["Missing option '--raw'", "volspike replay --help"]),
        ("replay --raw a.ndjson", ["Missing option '--out'", "volspike replay --help"]),
        ("replay --raw a.ndjson --out f.parquet --windows", ["'--windows' requires an argument", "replay --help"]),
        ("replay --raw a.ndjson --out f.parquet --windows many", ["'--windows'", "valid integer"]),
        ("replay --raw a.ndjson --out f.parquet more", ["unexpected extra argument", "more", "replay --help"]),
        ("train", ["Missing option '--features'", "volspike train --help"]),
        ("train --features f.parquet --folds few", ["'--folds'", "valid integer", "train --help"]),
        ("infer --features f.parquet", ["Missing option '--model'", "volspike infer --help"]),
        ("label", ["Missing option '--features'", "volspike label --help"]),
        ("serve --port http", ["'--port'", "valid integer", "volspike serve --help"]),
        ("demo --port http", ["'--port'", "valid integer", "volspike demo --help"]),
        ("simulate --out a.ndjson --minutes long", ["'--minutes'", "valid integer", "simulate --help"]),
        ("convert --raw a.ndjson", ["Missing option '--out'", "volspike convert --help"]),
    ],
)
def test_a_wrong_call_is_one_line(line: str, told: list[str], volspike: Run, tmp_path: Path) -> None:
    """What was wrong with the call, where to read how it is right, status 2, and not a file written."""
    assert_refused(volspike(*line.split()), USAGE, "usage: ", *told)
    assert list(tmp_path.iterdir()) == []


def test_a_number_in_the_environment_is_checked_too(volspike: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that replaces a flag is refused like the flag."""
    monkeypatch.setenv("API_PORT", "http")
    assert_refused(volspike("serve"), USAGE, "UsageError: settings for serving", "`$.port`")
    assert_refused(volspike("demo"), USAGE, "API_PORT", "valid integer")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_encoding_of_the_output_is_survived(encoding: str, tmp_path: Path) -> None:
    """Commands print arrows, Greek letters and dashes in any encoding, and end with the status of their work."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "NO_COLOR": "1"}
    tape = "t\N{GREEK SMALL LETTER ALPHA}pes [1]/market.ndjson"
    for arguments in (
        ["--help"],
        ["simulate", "--minutes", "8", "--seed", "3", "--out", tape],
        ["replay", "--raw", "t\N{GREEK SMALL LETTER ALPHA}pes [1]/*.ndjson", "--every", "1s", "--out", "f [1].parquet"],
        ["label", "--features", "f [1].parquet", "--spike", "jump:2"],
        ["models", "list", "--artifacts", "none"],
    ):
        ended = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "volspike", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert b"UnicodeEncodeError" not in ended.stderr
        assert ended.stdout
