"""For sites under an ASGI server: a process that is told to stop finishes its refreshes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]


def ending_in_order(application: Application) -> Application:
    """Return an ASGI application that also answers the *lifespan* protocol, which Django does not.

    When the server shuts down, the app cancels queued refreshes and waits for those it has sent.
    uvicorn alone would end on SIGTERM without waiting for threads.
    """

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        from sipgate_provider import background  # not before Django is set up

        await asyncio.to_thread(background.end_process)
        await send({"type": "lifespan.shutdown.complete"})

    return wrapped
