"""Writes what the code and its tests take from sipgate's OpenAPI specification::

    curl -o swagger.json https://api.sipgate.com/v2/swagger.json
    python -m tests.project.specification swagger.json

``sipgate_provider/remote/required_scopes.json`` has the scopes of each operation, of which any one
suffices, and ``tests/data/sipgate_fields.json`` the properties of the answers that
``sipgate_provider.values`` reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.project.pages import ROOT

SCOPES = ROOT / "sipgate_provider" / "remote" / "required_scopes.json"
FIELDS = ROOT / "tests" / "data" / "sipgate_fields.json"
UNDOCUMENTED = {
    "GET /channels": ["channels:read"],
    "GET /channels/{channelId}/events": ["channels:read"],
    "POST /calls": ["rtcm:write"],
}
"""Of neo: newer than the specification, or left out of it."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def scopes(specification: dict[str, Any]) -> dict[str, list[str]]:
    found = dict(UNDOCUMENTED)
    for path, operations in specification["paths"].items():
        for method in (one for one in METHODS if one.lower() in operations):
            security = operations[method.lower()].get("security", ())
            named = [scope for scheme in security for scope in scheme.get("oauth2", ())]
            found[f"{method} {path}"] = [scope for scope in named if scope != "all"]
    return dict(sorted(found.items()))


def fields(specification: dict[str, Any]) -> dict[str, list[str]]:
    """Return the properties of the schemas that the file has now, those of their parts included."""
    schemas = specification.get("definitions") or specification["components"]["schemas"]

    def of(schema: dict[str, Any]) -> set[str]:
        parts = [
            schemas[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            for one in schema.get("allOf", ())
        ]
        return set(schema.get("properties", ())).union(*map(of, parts))

    return {name: sorted(of(schemas[name])) for name in json.loads(FIELDS.read_text())}


def write(file: Path, data: dict[str, list[str]]) -> None:
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in data.items())
    file.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    write(SCOPES, scopes(read))
    write(FIELDS, fields(read))
