"""The worker process: reads a job per line, does it, answers with a line."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import django

django.setup()

from bench import jobs  # noqa: E402  # after the set-up


def answer(order: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": jobs.JOBS[order["job"]](**order["arguments"])}
    except Exception:  # whatever it is, the parent shall show it
        return {"failed": traceback.format_exc()}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
