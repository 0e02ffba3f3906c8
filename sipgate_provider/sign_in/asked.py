"""Remembers, in allauth's state, what a sign-in asks for, from the button to the callback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KEY = "sipgate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sign-in asks for."""

    scope: tuple[str, ...] = ()
    repairs: int | None = None
    """Primary key of the connection to repair: its user must come back."""
    again: bool = False
    """The callback began this sign-in again; no user pressed a button."""

    def in_data(self, data: Any) -> dict[str, Any]:
        """Return the data of a state, with this added."""
        own = {"scope": list(self.scope), "repairs": self.repairs, "again": self.again}
        return {**(data if isinstance(data, dict) else {}), KEY: own}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Asked:
        """Return what the sign-in with this state asked for."""
        data = state.get("data")
        own = data.get(KEY, {}) if isinstance(data, dict) else {}
        return cls(tuple(own.get("scope", ())), own.get("repairs"), own.get("again", False))
