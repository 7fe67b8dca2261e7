"""Keeps others out: requests for another host (DNS rebinding) and from other pages (CSRF)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page may use nothing of this server, and no page but its own may show it.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?")


class Guard:
    """Lets requests through that are for this server by an address or a name of it, and, where they
    change something, from its own page or from a program. All answers get HEADERS.

    A name of another kind is refused: a stranger's page can have its name point here, but not an
    address. The port is not compared, for it is another one at the near end of a tunnel.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        app = self._app if refusal is None else refusal
        return await app(scope, receive, with_headers)

    def _refusal(self, method: str, headers: Headers) -> JSONResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            sentence = "this server has another name; open the address that it printed."
            return JSONResponse({"error": sentence}, 421)
        site = headers.get("sec-fetch-site", "same-origin")
        allowed = site in ("same-origin", "none")
        if method in ("GET", "HEAD"):  # another page may have a link here, and no more
            allowed |= headers.get("sec-fetch-mode") == "navigate"
        else:
            origins = headers.getlist("origin")
            own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
            allowed &= len(origins) <= 1 and own.issuperset(origins)
        if allowed:
            return None
        return JSONResponse({"error": "a request of another page; refused."}, 403)

    def _is_ours(self, host: str) -> bool:
        parsed = _HOST.fullmatch(host)
        if parsed is None:
            return False
        name = parsed[1].lower()
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return True
