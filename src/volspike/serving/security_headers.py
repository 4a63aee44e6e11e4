"""What every answer tells a browser to refuse, and what pages tell besides."""

from __future__ import annotations

from typing import Final

ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Nobody guesses what an answer is, and no other site's page takes it in."""

ON_PAGES: Final = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Beside a page's own Content-Security-Policy. ``X-Frame-Options`` repeats ``frame-ancestors`` for old browsers."""
