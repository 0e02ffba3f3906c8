"""The client of a running sandbox's control API. Standard library only, so that anything may import it."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any


class NoSandbox(ConnectionError):
    """No sandbox answers at this address."""


class SandboxControl:
    """The control API of the sandbox at ``url``.

    Every call raises ``ValueError`` with the sandbox's sentence if it refuses, ``NoSandbox`` if there is none.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def state(self) -> dict[str, Any]:
        """Return counters, sessions and armed faults."""
        return dict(self._call("GET", "state"))

    def fault(
        self,
        fault: str,
        *,
        on: str = "all",
        times: int | None = 1,
        seconds: float = 5.0,
        value: Any = None,
    ) -> None:
        """Arm a fault for the next ``times`` matching requests (None: until cleared)."""
        self._call(
            "POST",
            "faults",
            {"fault": fault, "on": on, "times": times, "seconds": seconds, "value": value},
        )

    def faults(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "faults"))

    def clear(self) -> None:
        self._call("DELETE", "faults")

    def reset(self, *, people: bool = False) -> None:
        """Reset counters, faults, history and contacts; with ``people`` all the rest, too."""
        self._call("POST", "reset", {"people": people})

    def expire_access(self, uid: str = "") -> None:
        self._call("POST", "expire-access", {"uid": uid})

    def expire_refresh(self, uid: str = "") -> None:
        self._call("POST", "expire-refresh", {"uid": uid})

    def kill_session(self, uid: str = "") -> None:
        """End the sessions and grants of one person, or of all, as an administrator can."""
        self._call("POST", "kill-session", {"uid": uid})

    def withdraw_consent(self, uid: str = "") -> None:
        """Withdraw the consent of one person, or of all."""
        self._call("POST", "withdraw-consent", {"uid": uid})

    def set_enabled(self, uid: str, enabled: bool) -> None:
        """Disable a person, whose tokens are then refused, or enable them again, so that the same tokens work."""
        self._call("POST", "person", {"uid": uid, "enabled": enabled})

    def change_client(self, **changes: Any) -> None:
        """Change the client: ``secret``, ``scopes`` (a list; None: all), ``enabled``."""
        self._call("POST", "client", changes)

    def behave(self, **changes: Any) -> dict[str, Any]:
        """Change how the authorization server behaves, by the names of ``behaviour.Behaviour``; return the whole."""
        return dict(self._call("POST", "behaviour", changes))

    def lifetimes(
        self, *, access: int | None = None, refresh: int | None = None, session: int | None = None
    ) -> None:
        """Set the lifetimes (seconds) of tokens that will be issued, and of browser sessions."""
        named = {
            "access_lifetime": access,
            "refresh_lifetime": refresh,
            "session_lifetime": session,
        }
        self.behave(**{name: value for name, value in named.items() if value is not None})

    def _call(self, method: str, name: str, payload: dict[str, Any] | None = None) -> Any:
        body = None if payload is None else json.dumps(payload).encode()
        request = urllib.request.Request(  # noqa: S310  # the scheme is ours
            f"{self.url}/_sandbox/{name}",
            data=body,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  # the scheme is ours
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.read()) from None
        except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError):
            raise self._nobody() from None

    def _refusal(self, body: bytes) -> Exception:
        try:
            return ValueError(str(json.loads(body)["error"]))
        except (ValueError, KeyError, TypeError):
            return self._nobody()

    def _nobody(self) -> NoSandbox:
        return NoSandbox(f"No sandbox answers at {self.url}.")
