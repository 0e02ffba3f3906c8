"""``make bench`` runs. What it measures on a busy machine means nothing."""

import subprocess
import sys

import pytest

from tests.project.pages import ROOT


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_quick_run_measures_every_case():
    command = [sys.executable, "-m", "bench", "--quick", "--database", "sqlite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kept    queries: 1" in done.stdout
    assert "kept    refreshes per token that has ended: 1" in done.stdout
