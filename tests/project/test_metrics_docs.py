"""Metrics, log fields and alert rules: what the documents name is what the code has, and the other way round."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sipgate_provider import errors, exposition, metrics
from sipgate_provider.models import State

ROOT = Path(__file__).resolve().parents[2]
MONITORING = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
ALERTS = (ROOT / "docs/alerts.yml").read_text(encoding="utf-8")

KNOWN: dict[str, tuple[str, Mapping[str, frozenset[str] | None]]] = {
    **{one.name: (one.kind, one.labels) for one in metrics.INSTRUMENTS},
    **{
        one.name: ("gauge", dict.fromkeys(one.labels, frozenset(State.values)))
        for one in exposition.GAUGES
    },
}
RULE = {
    "alert": r"[A-Z][A-Za-z]+",
    "expr": r".+",
    "for": r"[0-9]+[mh]",
    "severity": r"warning|critical",
    "summary": r"[A-Z].+\.",
    "action": r"[A-Z].+\.",
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of all tables under a heading of the monitoring page, without the heads."""
    section = MONITORING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rules() -> list[dict[str, str]]:
    """Read the rules: a subset of YAML in which every line has to be understood."""
    found: list[dict[str, str]] = []
    for line in ALERTS.splitlines():
        if line.startswith("#") or line in {"groups:", "  - name: sipgate", "    rules:"}:
            continue
        if line in {"        labels:", "        annotations:"}:
            continue
        match = re.fullmatch(r"(      - |        |          )(\w+): (.*)", line)
        assert match, line
        indent, key, value = match.groups()
        assert len(indent) == {"alert": 8, "severity": 10, "summary": 10, "action": 10}.get(
            key, 8
        ), line
        assert (indent == "      - ") == (key == "alert"), line
        # What YAML would take for something else than text.
        assert ": " not in value, line
        assert " #" not in value, line
        assert value[0] not in "{[&*!|>%@`'\"-?:,", line
        if key == "alert":
            found.append({})
        assert key not in found[-1], line
        found[-1][key] = value
    return found


def test_the_table_has_every_metric() -> None:
    documented = {
        names(row[0])[0]: (row[1], names(row[2])) for row in rows("Metrics") if len(row) == 4
    }
    assert documented == {name: (kind, list(labels)) for name, (kind, labels) in KNOWN.items()}


def test_every_bounded_label_is_explained() -> None:
    documented = {
        tuple(names(row[0])): set(names(row[1]))
        for row in rows("Metrics")
        if len(names(row[0])) == 2
    }
    bounded = {
        (one.name, label): set(values)
        for one in metrics.INSTRUMENTS
        for label, values in one.labels.items()
        if values is not None and label != "status"
    }
    bounded["sipgate_refreshes_total", "actor"] |= {metrics.OTHER}
    assert documented == bounded


def test_every_module_that_counts_is_known_from_the_start() -> None:
    """What is imported later would not begin at zero."""
    for path in (ROOT / "sipgate_provider").rglob("*.py"):
        if re.search(r"metrics\.(Counter|Histogram)\(", path.read_text(encoding="utf-8")):
            assert path.stem in {
                module.__name__.rpartition(".")[2] for module in exposition.COUNTING
            }


def test_the_table_has_every_log_field() -> None:
    documented = [names(row[0])[0] for row in rows("Log fields")]
    assert documented == [*errors.LogFields.__annotations__]


def log_calls() -> list[tuple[str, ast.Call]]:
    """Return every call of a logger of the app, with its text."""
    found = []
    for path in sorted((ROOT / "sipgate_provider").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "logger":
                texts = [
                    one.value
                    for one in node.args
                    if isinstance(one, ast.Constant) and isinstance(one.value, str)
                ]
                found += [(texts[0], node)] if texts else []
    return found


def test_a_record_with_a_reference_has_it_as_a_field_too() -> None:
    calls = [(text, node) for text, node in log_calls() if "[%s]" in text]
    assert len(calls) >= 7
    assert [
        text for text, node in calls if not any(word.arg == "extra" for word in node.keywords)
    ] == []


def test_rules_are_complete() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 7
    for rule in found:
        assert set(rule) | {"for"} == set(RULE), rule
        for key, value in rule.items():
            assert re.fullmatch(RULE[key], value), value
        assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_rules_ask_for_what_there_is(rule: dict[str, Any]) -> None:
    asked = re.findall(r"(sipgate_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert asked or re.findall(r"up\{job=", rule["expr"])
    for series, selector in asked:
        name = re.sub(r"_(bucket|sum|count)$", "", series) if series not in KNOWN else series
        assert name in KNOWN, series
        kind, labels = KNOWN[name]
        assert (series != name) == (kind == "histogram"), series
        for label, pattern in re.findall(r'(\w+)=~?"([^"]*)"', selector):
            assert label in labels, (series, label)
            values = labels[label]
            for one in pattern.split("|"):
                assert values is None or any(re.fullmatch(one, value) for value in values), (
                    series,
                    one,
                )
