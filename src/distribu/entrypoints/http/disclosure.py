"""Where those who find a hole can turn, for programs (RFC 9116) and for people."""

from datetime import timedelta
from typing import Any, Final

from litestar import Request as HttpRequest, get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application.ports import Clock
from distribu.entrypoints.http.browser import Site

VALID: Final = timedelta(days=180)
"""How far ahead the file expires: RFC 9116 (2.5.5) asks for less than a year."""

POLICY: Final = """\
You get an answer within one business day. We keep you in the loop while we fix it, and credit you in the
changelog if you ask for it. There is no paid bounty. Nobody is threatened with the law for finding a real
problem in good faith.

Please do not test against other people's companies, do not take out more data than it takes to show the
problem, and do not run load or fuzz tests against a running installation without agreeing on it first.
"""
"""What is promised and what is asked, as in SECURITY.md."""


def disclosures(site: Site, clock: Clock) -> list[HTTPRouteHandler]:
    """The file and the policy that it points at."""

    @get("/.well-known/security.txt", include_in_schema=False)
    async def security_txt(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """Whom to write to."""
        until = (clock.now() + VALID).date()
        lines = [f"Contact: {site.contact}", f"Expires: {until}T00:00:00Z", "Preferred-Languages: en"]
        # Both have to be HTTPS (RFC 9116, 2.5.2 and 2.5.7).
        if site.origin and site.origin.startswith("https://"):
            lines.append(f"Canonical: {site.origin}/.well-known/security.txt")
            lines.append(f"Policy: {site.origin}/security")
        return _text("\n".join([*lines, ""]))

    @get("/security", include_in_schema=False)
    async def policy(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """What is promised to those who write."""
        return _text(f"Found a hole? Write to {site.contact.removeprefix('mailto:')}.\n\n{POLICY}")

    return [security_txt, policy]


def _text(text: str) -> ASGIResponse:
    return ASGIResponse(
        body=text.encode(), media_type="text/plain", headers={"cache-control": "max-age=3600"}
    )
