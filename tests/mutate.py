"""Breaks one thing after another, and looks whether the tests notice: ``make mutate``.

``tests.mutations`` has the rules. First their tests must pass with nothing broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import django

from tests import postgres
from tests.mutations import Rule, rules

AT_ONCE = 2
LEAST_SHARE = 0.95
PATIENCE = 300
"""Seconds after which a rule counts as noticed: the tests hang."""
PASSED, FAILED = 0, 1


def run(tests: list[str], *options: str, broken: str = "", database: str = "") -> tuple[int, str]:
    """Run tests; return pytest's exit code, and what it told."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.mutations"]
    with subprocess.Popen(
        [*command, *options, *tests],
        env={**os.environ, "SIPGATE_BROKEN": broken, "SIPGATE_TEST_DATABASE_URL": database},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=PATIENCE if broken else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the servers that the tests have started
            return FAILED, "They do not end."
    return process.returncode, told[-3000:]


def is_noticed(rule: Rule) -> bool:
    began = time.monotonic()
    with postgres.running() if rule.postgresql else contextlib.nullcontext("") as database:
        order = ("-p", "no:randomly")
        code, told = run(rule.tests.split(), *order, broken=rule.says, database=database)
    if code not in {PASSED, FAILED}:
        raise RuntimeError(f"“{rule.says}” cannot be tried:\n{told}")
    noticed = code == FAILED
    print(f"{'noticed' if noticed else 'MISSED':8}{time.monotonic() - began:4.0f} s  {rule.says}")
    for line in told.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            print(f"                {line[:160]}")
    return noticed


def chosen_rules(arguments: list[str]) -> list[Rule]:
    parser = argparse.ArgumentParser("python -m tests.mutate", description=__doc__)
    parser.add_argument("word", nargs="*", help="only rules that say this, or name such a test")
    parser.add_argument("--list", action="store_true", help="show the rules, and break nothing")
    options = parser.parse_args(arguments)
    chosen = [
        rule
        for rule in rules()
        if not options.word or any(word in f"{rule.says} {rule.tests}" for word in options.word)
    ]
    if options.list:
        print("\n".join(f"{rule.says}\n    {rule.tests}" for rule in chosen))
        parser.exit()
    if not chosen:
        parser.error("no rule has this word")
    return chosen


def main(arguments: list[str]) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    chosen = chosen_rules(arguments)
    began = time.monotonic()
    tests = sorted({test for rule in chosen for test in rule.tests.split()})
    code, told = run(tests, "-n", str(AT_ONCE))
    if code != PASSED:
        print(f"The tests fail before anything is broken:\n{told}")
        return 1
    with ThreadPoolExecutor(AT_ONCE) as pool:
        noticed = list(pool.map(is_noticed, chosen))
    print(f"{sum(noticed)} of {len(chosen)} noticed in {time.monotonic() - began:.0f} s")
    return 0 if sum(noticed) >= LEAST_SHARE * len(chosen) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main(sys.argv[1:]))
