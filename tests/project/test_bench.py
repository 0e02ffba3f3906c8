"""``make bench`` runs. What it measures on a busy machine means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.pages import ROOT


@pytest.mark.long
@pytest.mark.timeout(300)
def test_quick_run_measures_every_case(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "bench",
        "--quick",
        "--database",
        "sqlite",
        "--output",
        str(tmp_path / "bench.json"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads((tmp_path / "bench.json").read_text())["cases"]
    assert len(cases) == 7
    assert {
        target["name"]: target["value"]
        for case in cases
        for target in case["targets"]
        if not target["unit"]
    } == {
        "valid token: queries": 1,
        "contention: refreshes per token that has ended": 1,
        "contention: failed callers, and spent tokens sent": 0,
        "another key: tokens left or lost": 0,
    }
