"""Fetches Keycloak's distribution from Maven Central once, and checks its hash.

It stays in the folder ``KEYCLOAK_CACHE``; the default is ``sipgate-django`` in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "26.7.3"
SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
OLDEST_JAVA = 17


class Missing(RuntimeError):
    """Something has to be installed first; the message says what."""


def installed() -> Path:
    """Return the folder of an unpacked Keycloak; download and unpack it if it is not there yet.

    Raises:
        Missing: there is no Java 17 or newer, or neither Maven nor an earlier download.
    """
    _require_java()
    folder = cache_folder() / f"keycloak-{VERSION}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=cache_folder()) as draft:
            _unpack(_download(Path(draft)), Path(draft))
            # Moved once complete, so that an interrupted run leaves nothing that looks finished.
            (Path(draft) / folder.name).rename(folder)
    return folder


def cache_folder() -> Path:
    """Return the folder of downloads; create it if there is none."""
    users_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("KEYCLOAK_CACHE") or users_cache / "sipgate-django").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _require_java() -> None:
    sentence = (
        f"Keycloak needs Java {OLDEST_JAVA} or newer; on Debian: "
        "apt-get install openjdk-17-jre-headless"
    )
    java = shutil.which("java")
    if java is None:
        raise Missing(sentence)
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise Missing(
            f"{sentence} (found: {told.splitlines()[0] if told else 'a java that does not answer'})"
        )


def _download(folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise Missing("Maven is needed to download Keycloak; on Debian: apt-get install maven")
    print(f"→ downloading Keycloak {VERSION} (170 MB) into {cache_folder()}", flush=True)
    subprocess.run(
        [
            maven,
            "-B",
            "-q",
            f"{PLUGIN}:copy",
            f"-Dartifact={ARTIFACT}",
            f"-DoutputDirectory={folder}",
        ],
        cwd=folder,
        check=True,
        timeout=900,
    )
    archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{archive.name} is not the expected file: its SHA-256 is {found}.")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as files:
        files.extractall(folder)
    for script in (folder / f"keycloak-{VERSION}" / "bin").glob("*.sh"):
        script.chmod(script.stat().st_mode | stat.S_IXUSR)


if __name__ == "__main__":
    try:
        installed()
    except Missing as missing:
        sys.exit(str(missing))
