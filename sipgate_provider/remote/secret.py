"""Provides text that does not show when it is printed.

An error report prints the local variables of every frame; a log call or an assertion prints what it
is given. ``Secret`` is an ordinary ``str`` to code that sends it, and dots to code that prints it.
Django's ``sensitive_variables`` covers only the functions it decorates, and ``remote`` does not know
Django.
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
