"""README.md: from an existing allauth site to a page that shows the connection."""

import ast

import pytest

from sipgate_sandbox.launch import launch
from tests.package import foreign
from tests.package.visitor import Visitor
from tests.ports import free_port
from tests.project.pages import ROOT, blocks

PAGE, HEADING = ROOT / "README.md", "Use it in your own site"


@pytest.mark.parametrize("index", [False, pytest.param(True, marks=pytest.mark.long)])
def test_six_settings_are_enough(wheel, tmp_path, index):
    settings, _serve = (block for block in blocks(PAGE) if block.heading == HEADING)
    assert len(ast.parse(settings.text).body) == 6
    python = foreign.environment(tmp_path / "venv", str(wheel), index=index)
    port = free_port()
    callback = f"http://localhost:{port}/accounts/sipgate/login/callback/"
    with launch("--redirect-uri", callback) as sandbox:
        site = foreign.ForeignSite(tmp_path / "site", "without_sipgate", port=port, sandbox=sandbox)
        site.add(settings.text.replace("http://localhost:8081", sandbox.url))
        with site.serving(python):
            visitor = Visitor(site.origin)
            page = visitor.sign_in()
            visitor.close()
    assert "Successfully signed in" in page.text
    assert 'name="account"' in page.text, "the connection is listed"
