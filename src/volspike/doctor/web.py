"""One question to a web server: its answer, or in words why there is none."""

from __future__ import annotations

import httpx


def is_refused_address(url: str) -> bool:
    """Whether a text is no address of the web at all."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return True
    return parsed.scheme not in {"http", "https"} or not parsed.host


async def ask(url: str, within_s: float) -> httpx.Response | str:
    """The answer to ``GET url``, whatever its status; a sentence where none came in time."""
    try:
        async with httpx.AsyncClient(timeout=within_s, headers={"user-agent": "volspike"}) as client:
            return await client.get(url)
    except httpx.TimeoutException:
        return f"no answer within {within_s:g} s"
    except httpx.RequestError as error:
        return " ".join(str(error).split()) or type(error).__name__
