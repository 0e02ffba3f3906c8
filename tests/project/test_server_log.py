"""What gunicorn itself writes."""

import json

from tests.served import served

BROKEN = """
from sipgate_project.wsgi import application as site

def application(environ, start_response):
    if environ["PATH_INFO"] == "/oauth":
        raise RuntimeError("outside of Django")
    return site(environ, start_response)
"""


def test_no_line_has_a_query_and_workers_write_the_sites_format(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    with served(
        tmp_path,
        f"sqlite:///{tmp_path}/db.sqlite3",
        application="broken:application",
        GUNICORN_CMD_ARGS=f"--pythonpath {tmp_path}",
        LOG_FORMAT="json",
    ) as site:
        assert site.get("/livez?code=unmistakable").status_code == 200
        assert site.get("/oauth?code=unmistakable").status_code == 500
    log = site.log.read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "Error handling request GET /oauth?…" in {line["message"] for line in lines}
    assert {line["logger"] for line in lines} >= {"gunicorn.access", "gunicorn.error"}
    assert "unmistakable" not in log
