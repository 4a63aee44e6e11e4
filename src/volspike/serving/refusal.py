"""A refusal by what stands before the application: one sentence as JSON, and the connection goes on."""

from __future__ import annotations

from starlette.types import Send

from volspike.serving.answers import Problem, encode


async def refuse(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer without having read the body; what of it still comes is thrown away by whoever holds the connection."""
    content = encode(Problem(detail))
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": content, "more_body": False})
