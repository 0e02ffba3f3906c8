"""The client of a sandbox's control API. Needs no Django."""

from __future__ import annotations

from typing import Any

import requests


class SandboxControl:
    """The control API of the sandbox at ``url``.

    Every call raises ``ValueError`` with the sandbox's sentence if the sandbox rejects it, and
    ``requests.RequestException`` if no sandbox answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def state(self) -> dict[str, Any]:
        """Return counters, ``sessions_alive`` and armed ``faults``."""
        return self._order("state")

    def fault(
        self,
        fault: str,
        *,
        on: str = "all",
        times: int | None = 1,
        seconds: float = 5.0,
        value: dict[str, Any] | None = None,
    ) -> None:
        """Arm a fault for the next ``times`` matching requests (None: until cleared)."""
        self._order("faults", fault=fault, on=on, times=times, seconds=seconds, value=value)

    def clear(self) -> None:
        """End all faults."""
        self._order("clear")

    def reset(self) -> None:
        """Make everything as new: sessions, consents, realm, history, faults and counters."""
        self._order("reset")

    def expire_access(self, uid: str = "") -> None:
        """Let the access tokens of one person, or of all, expire."""
        self._order("expire-access", uid=uid)

    def kill_session(self, uid: str = "") -> None:
        """End the sessions and grants of one person, or of all, as an administrator can."""
        self._order("kill-session", uid=uid)

    def withdraw_consent(self, uid: str) -> None:
        self._order("withdraw-consent", uid=uid)

    def change_realm(self, **values: Any) -> None:
        """Change lifetimes and switches, by the names of the fields of ``realm.Realm``."""
        self._order("realm", **values)

    def _order(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer = requests.post(f"{self.url}/_sandbox/{name}", json=arguments, timeout=20)
        if answer.status_code == 400:
            raise ValueError(answer.json()["error"])
        answer.raise_for_status()
        return dict(answer.json())
