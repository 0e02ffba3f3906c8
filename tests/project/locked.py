"""The pinned requirements fit ``pyproject.toml`` and each other. Run by ``make check``; needs no network."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


def pins(name: str) -> dict[str, str]:
    """Return package → version of a requirements file."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", line)
        if match:
            found[canonicalize_name(match[1])] = match[2]
    return found


def complaints() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    site, dev = pins("requirements.txt"), pins("requirements-dev.txt")
    wanted = [
        ("requirements.txt", site, word)
        for word in project["project"]["dependencies"] + groups["site"]
    ]
    wanted += [("requirements-dev.txt", dev, word) for word in groups["dev"]]
    found = []
    for file, pinned, word in wanted:
        requirement = Requirement(word)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            found.append(f"{file}: {word} is wanted, {version or 'nothing'} is pinned")
    found += [
        f"requirements-dev.txt pins {name}=={dev.get(name)}, requirements.txt {version}"
        for name, version in site.items()
        if dev.get(name) != version
    ]
    return found


def main() -> int:
    found = complaints()
    for complaint in found:
        sys.stderr.write(f"{complaint}\n")
    if found:
        sys.stderr.write("Run make lock.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
