"""The broker's jars: copied once by Maven, as ``pom.xml`` pins them, into a cache outside of the repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

POM: Final = Path(__file__).with_name("pom.xml")
MAVEN_TIMEOUT_S: Final = 600


def kafka_jars() -> Path:
    """The folder of the jars, filled by Maven at the first call; ``VOLSPIKE_KAFKA_JARS`` names another.

    Raises:
        RuntimeError: Maven is not there, or could not get them; with what it said.
    """
    folder = _folder()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            _copy_into(Path(part) / "jars")
            try:
                (Path(part) / "jars").rename(folder)
            except OSError:
                if not folder.is_dir():  # else another test run was faster
                    raise
    return folder


def _folder() -> Path:
    """Named after the version and the pom's content, so that a changed pom is copied again."""
    if named := os.environ.get("VOLSPIKE_KAFKA_JARS"):
        return Path(named)
    pom = POM.read_text()
    version = re.search(r"<kafka\.version>(.+?)</kafka\.version>", pom)
    assert version is not None, f"{POM} names no kafka.version"
    digest = hashlib.sha256(pom.encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "volspike" / f"kafka-{version[1]}-{digest}"


def _copy_into(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RuntimeError("a real Kafka needs Maven (and Java 17): apt-get install maven openjdk-17-jre-headless")
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    done = subprocess.run(  # noqa: S603  our own command
        [maven, "-q", "-B", "-ntp", "-f", str(POM), *goal],
        capture_output=True,
        text=True,
        timeout=MAVEN_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"Maven could not copy Kafka's jars:\n{done.stdout}{done.stderr}")
