"""Provides text that does not show when it is printed.

An error report prints the local variables of every frame; a log call or an assertion prints what it is given.
``Secret`` is an ordinary ``str`` to code that sends it, and dots to code that prints it. Django's
``sensitive_variables`` covers only the functions it decorates, and the modules that speak HTTP do not know Django.
"""

from __future__ import annotations


class Secret(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'•••'"


class SecretBytes(bytes):
    """The same for bytes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "b'•••'"


def without_frames(error: BaseException) -> BaseException:
    """Return ``error`` without the frames and requests that it carries, and so do its causes: they hold bodies and
    headers with secrets, in code of others. Its text and its kind stay.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.__traceback__ = None
        for name in ("request", "response", "pool", "conn", "_conn"):
            if (
                vars(current).get(name) is not None
            ):  # getattr would wake urllib3's deprecated properties
                try:
                    setattr(current, name, None)
                except AttributeError:
                    continue
        current = current.__cause__ or current.__context__
    return error
