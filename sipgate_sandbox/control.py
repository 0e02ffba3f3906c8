"""The client of a sandbox's control API: standard library only, so anything may import it."""

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

    Every call raises ``ValueError`` with the sandbox's sentence if it rejects it, ``NoSandbox`` if
    there is none.
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
        value: Any = None,
    ) -> None:
        """Arm a fault for the next ``times`` matching requests (None: until cleared)."""
        self._order("faults", fault=fault, on=on, times=times, seconds=seconds, value=value)

    def faults(self) -> list[dict[str, Any]]:
        return list(self.state()["faults"])

    def clear(self) -> None:
        """End all faults."""
        self._order("clear")

    def reset(self, *, people: bool = False) -> None:
        """Reset counters, faults, history and contacts; with ``people`` all the rest, too."""
        self._order("reset", people=people)

    def expire_access(self, uid: str = "") -> None:
        """Let the access tokens of one person, or of all, expire."""
        self._order("expire-access", uid=uid)

    def kill_session(self, uid: str = "") -> None:
        """End the sessions and grants of one person, or of all, as an administrator can."""
        self._order("kill-session", uid=uid)

    def withdraw_consent(self, uid: str) -> None:
        self._order("withdraw-consent", uid=uid)

    def set_enabled(self, uid: str, enabled: bool) -> None:
        """Disable a person, whose tokens are then rejected, or enable them again."""
        self._order("person", uid=uid, enabled=enabled)

    def change_client(self, **changes: Any) -> None:
        """Change the client: ``secret``, ``scopes`` (a list; None: all), ``enabled``."""
        self._order("client", **changes)

    def behave(self, **changes: Any) -> dict[str, Any]:
        """Change lifetimes and switches, by the names of ``realm.Realm``; return all of them."""
        return self._order("behaviour", **changes)

    def lifetimes(
        self, *, access: int | None = None, refresh: int | None = None, session: int | None = None
    ) -> None:
        """Set how long (seconds) tokens live that will be issued, and browser sessions."""
        named = {"access": access, "refresh": refresh, "session": session}
        self.behave(**{f"{name}_lifetime": value for name, value in named.items() if value})

    def _order(self, name: str, **arguments: Any) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the scheme is ours
            f"{self.url}/_sandbox/{name}",
            data=json.dumps(arguments).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  # as above
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                raise self._rejection(error.read()) from None
        except (OSError, http.client.HTTPException, ValueError):
            raise self._nobody() from None

    def _rejection(self, body: bytes) -> Exception:
        try:
            return ValueError(str(json.loads(body)["error"]))
        except (ValueError, KeyError, TypeError):
            return self._nobody()

    def _nobody(self) -> NoSandbox:
        return NoSandbox(
            f"No sandbox answers at {self.url}. Set SANDBOX_PORT to its port, or name its --url."
        )
