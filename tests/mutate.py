"""Breaks the code at one place after the other and looks whether the tests notice: ``make mutate``.

``tests/mutations.toml`` lists what is broken, how, and which tests have to fail. It is written by hand: tools that
invent mutations (mutmut, cosmic-ray) make thousands of them and repeat many tests for each, which takes days with tests
that start databases, servers and processes; and mutmut runs its tests in forked children of a process that has threads.

Every mutation is tried in a copy of the checkout. First the named tests must pass there unharmed. Words as arguments
choose the mutations whose description or file contains one of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests import postgres

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "mutations.toml"
COPIES = 2
LEAST_SHARE = 0.95
PATIENCE = 300
"""Seconds after which a mutation counts as caught: the tests hang."""
PASSED, FAILED = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """``new`` instead of ``old``, which stands once in ``file``, lets one of ``tests`` fail."""

    breaks: str
    file: str
    old: str
    new: str
    tests: list[str]
    postgresql: bool = False

    def applied_to(self, text: str) -> str:
        """Return ``text`` with the mutation. Raises ``ValueError`` if it does not fit: the code has changed."""
        if text.count(self.old) != 1 or self.old == self.new:
            raise ValueError(f"{self.file} has {text.count(self.old)} times, not once: {self.old}")
        return text.replace(self.old, self.new)


def listed() -> list[Mutation]:
    return [Mutation(**entry) for entry in tomllib.loads(LIST.read_text())["mutation"]]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the checkout, and the address of a PostgreSQL server of its own."""

    folder: Path
    database: str

    def fails(self, tests: list[str], *, postgresql: bool, patience: float = PATIENCE) -> str:
        """Return how the tests fail; empty: they pass."""
        variables = {
            "SIPGATE_TEST_DATABASE_URL": self.database if postgresql else "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n0",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
        ]
        with subprocess.Popen(
            [*command, *tests],
            cwd=self.folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                told, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(
                    process.pid, signal.SIGKILL
                )  # with the servers that the tests have started
                return "They do not end."
        if process.returncode not in {PASSED, FAILED}:
            raise RuntimeError(f"pytest could not run {tests}:\n{told[-3000:]}")
        return told[-3000:] if process.returncode else ""

    def catches(self, mutation: Mutation) -> bool:
        path = self.folder / mutation.file
        whole = path.read_text()
        path.write_text(mutation.applied_to(whole))
        try:
            return bool(self.fails(mutation.tests, postgresql=mutation.postgresql))
        finally:
            path.write_text(whole)


@contextmanager
def copies(number: int) -> Iterator[SimpleQueue[Copy]]:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    free: SimpleQueue[Copy] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(number):
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="sipgate-mutate-"))
            )
            for name in filter(None, names):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
            (folder / "var").mkdir(exist_ok=True)
            free.put(Copy(folder, stack.enter_context(postgres.running())))
        yield free


def main(words: list[str]) -> int:
    chosen = [
        one
        for one in listed()
        if not words or any(word in f"{one.file} {one.breaks}" for word in words)
    ]
    started, survived = time.monotonic(), []
    with copies(COPIES) as free, ThreadPoolExecutor(COPIES) as pool:

        def unharmed(postgresql: bool) -> str:
            tests = {test for one in chosen if one.postgresql == postgresql for test in one.tests}
            copy = free.get()
            try:
                return (
                    copy.fails(sorted(tests), postgresql=postgresql, patience=3600) if tests else ""
                )
            finally:
                free.put(copy)

        def survives(mutation: Mutation) -> bool:
            copy = free.get()
            try:
                began, survives = time.monotonic(), not copy.catches(mutation)
                print(
                    f"{'SURVIVED' if survives else 'caught':9}{time.monotonic() - began:4.0f} s  {mutation.breaks}"
                )
                return survives
            finally:
                free.put(copy)

        if failures := "".join(pool.map(unharmed, (False, True))):
            print(f"The tests fail before anything is broken:\n{failures}")
            return 1
        survived = [
            one for one, lives in zip(chosen, pool.map(survives, chosen), strict=True) if lives
        ]
    caught = len(chosen) - len(survived)
    print(f"\n{caught} of {len(chosen)} mutations caught in {time.monotonic() - started:.0f} s")
    for one in survived:
        print(f"  survived: {one.file}: {one.breaks}")
    return 0 if caught >= LEAST_SHARE * len(chosen) else 1


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a terminal or a file
    sys.exit(main(sys.argv[1:]))
