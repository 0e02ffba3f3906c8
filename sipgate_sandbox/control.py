"""The client of a sandbox's control API. Needs no Django."""

from __future__ import annotations

from typing import Any

import requests


class SandboxControl:
    """The control API of the sandbox at ``url``.

    Every method raises ``ValueError`` with the sandbox's sentence if the sandbox rejects the call,
    and ``requests.RequestException`` if no sandbox answers.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def state(self) -> dict[str, Any]:
        """Return the counters, ``sessions_alive``, and the armed ``faults``."""
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
        """Arm a fault for the next ``times`` requests to ``on``; ``None``: until ``clear``.

        ``seconds`` is how long ``slow`` waits, and what ``too-many`` sends as ``Retry-After``.
        ``value`` has the fields for ``change``.
        """
        self._order("faults", fault=fault, on=on, times=times, seconds=seconds, value=value)

    def clear(self) -> None:
        """Switch all faults off."""
        self._order("clear")

    def reset(self) -> None:
        """Restore the sandbox as it was when new: no session, no consent, no fault, no counter."""
        self._order("reset")

    def expire_access(self, uid: str = "") -> None:
        """Let the access tokens of one person, or of all, expire."""
        self._order("expire-access", uid=uid)

    def kill_session(self, uid: str = "") -> None:
        """End the sessions and grants of one person, or of all, as an administrator can."""
        self._order("kill-session", uid=uid)

    def withdraw_consent(self, uid: str) -> None:
        """Withdraw a person's consent to the site's client."""
        self._order("withdraw-consent", uid=uid)

    def change_realm(self, **values: Any) -> None:
        """Change fields of ``realm.Realm``."""
        self._order("realm", **values)

    def _order(self, name: str, **arguments: Any) -> dict[str, Any]:
        answer = requests.post(f"{self.url}/_sandbox/{name}", json=arguments, timeout=20)
        if answer.status_code == 400:
            raise ValueError(answer.json()["error"])
        answer.raise_for_status()
        return dict(answer.json())
