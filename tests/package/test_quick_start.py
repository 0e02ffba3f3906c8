"""README.md: from an existing allauth site to a page that shows the connection, in five minutes."""

from __future__ import annotations

import ast
import time
from pathlib import Path

from sipgate_sandbox.launch import launch
from tests.package import foreign
from tests.package.visitor import Visitor
from tests.project.pages import ROOT, blocks

PAGE, HEADING = ROOT / "README.md", "Use it in your own site"


def test_six_settings_are_enough(wheel: Path, tmp_path: Path) -> None:
    settings, _serve = (block for block in blocks(PAGE) if block.heading == HEADING)
    python = foreign.environment(tmp_path / "venv", "django-allauth[socialaccount]")
    port = foreign.free_port()
    callback = f"http://localhost:{port}/accounts/sipgate/login/callback/"
    with launch("--redirect-uri", callback) as sandbox:
        site = foreign.ForeignSite(tmp_path / "site", "without_sipgate", port=port, sandbox=sandbox)
        begun = time.monotonic()
        foreign.install(python, str(wheel))
        site.add(settings.text.replace("http://localhost:8081", sandbox.url))
        with site.serving(python):
            visitor = Visitor(site)
            page = visitor.sign_in()
            visitor.close()
        assert "Successfully signed in" in page.text
        assert 'name="account"' in page.text, "the connection is listed"
        assert time.monotonic() - begun < 300
    assert len(ast.parse(settings.text).body) == 6
