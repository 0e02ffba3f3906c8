"""Handles signing in at sipgate: the callback that allauth needs, and what a completed sign-in brings.

Only ``urls``, ``provider`` and ``adapter``, which allauth looks for by name, use it. It must not know how a token is
refreshed.
"""
