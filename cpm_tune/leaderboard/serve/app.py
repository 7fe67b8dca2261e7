"""The server of the page: its data, parts of runs, what goes on, and scores of predictions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from cpm_tune.errors import UserError
from cpm_tune.leaderboard.serve.guard import Guard
from cpm_tune.leaderboard.serve.live import PARTS_PATH, POLL, Live, Shown
from cpm_tune.leaderboard.serve.uploads import RefusedError, Scorer, check_folder
from cpm_tune.schema.walk import check_results

CONNECTIONS = 100
_IDLE = 10  # seconds in which a connection has to ask for something
_LONGEST = 600  # seconds of one request
_ENDING = 3  # seconds that requests get when the server ends
T = TypeVar("T")
_FIRST = 1.0  # seconds that a request waits for the folders to be looked at


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to listen; `names` are those that a request may have it by."""

    host: str = "127.0.0.1"
    port: int = 8765

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def names(self) -> Collection[str]:
        """The names, other than addresses, that a request may have this server by."""
        return () if self.loopback else (self.host, socket.gethostname(), socket.getfqdn())


def make_app(live: Live, scorer: Scorer, names: Collection[str] = ()) -> Guard:
    """The server as an ASGI application."""
    watch = _Watch(live)
    offer = {
        "tasks": sorted(scorer.tasks),
        "keep": scorer.keep_in is not None,
        "most_bytes": scorer.most_bytes,
    }

    async def page(request: Request) -> Response:
        await watch.fresh()
        shown = live.showing
        policy = f"{shown.policy}; frame-ancestors 'none'"
        headers = {"Content-Security-Policy": policy}
        return Response(shown.page, media_type="text/html; charset=utf-8", headers=headers)

    async def data(request: Request) -> Response:
        shown = live.showing
        tag = {"ETag": f'"{shown.version}"'}
        return Response(shown.data, media_type="application/json", headers=tag)

    async def part(request: Request) -> Response:
        name = request.path_params["name"].removesuffix(".js")
        try:
            text = await _aside(lambda: live.part(name))
        except asyncio.CancelledError:  # the server has been ended
            return Response(status_code=503)
        if text is None:
            return Response(status_code=404)
        return Response(text, media_type="text/javascript; charset=utf-8")

    async def now(request: Request) -> Response:
        await watch.fresh()
        shown = live.showing
        activity = {"activity": shown.activity, "scoring": offer}
        return JSONResponse({"version": shown.version, "poll": POLL, **activity})

    async def score(request: Request) -> Response:
        length = request.headers.get("content-length")
        try:
            result = await scorer.score(request.query_params, length, request.stream())
        except RefusedError as refused:
            again = {"Retry-After": "5"} if refused.status == 503 else {}
            return JSONResponse({"error": str(refused)}, refused.status, again)
        except ClientDisconnect:
            return Response(status_code=400)
        except asyncio.CancelledError:
            return JSONResponse({"error": "the server has been ended."}, 503)
        return JSONResponse(result)

    routes = [
        Route("/", page),
        Route(f"/{PARTS_PATH}/{{name}}", part),
        Route("/live.json", now),
        Route("/data.json", data),
        Route("/score", score, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), names)


async def _aside(make: Callable[[], T]) -> T:
    """What a call returns, made in a thread that keeps nobody from ending: a disk may hang."""
    made: concurrent.futures.Future[T] = concurrent.futures.Future()

    def work() -> None:
        try:
            made.set_result(make())
        except concurrent.futures.InvalidStateError:  # nobody waits any more
            pass
        except Exception as error:
            made.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return await asyncio.wrap_future(made)


class _Watch:
    """Looks at the folders while somebody asks, in a thread that keeps nobody from ending."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._done: threading.Event | None = None

    async def fresh(self) -> None:
        """Return when the folders have been looked at lately, or after _FIRST seconds."""
        if self._done is None and self._live.due:
            self._done = threading.Event()
            threading.Thread(target=self._look, args=(self._done,), daemon=True).start()
        if (done := self._done) is not None:
            await _aside(lambda: done.wait(_FIRST))

    def _look(self, done: threading.Event) -> None:
        try:
            self._live.look()
        finally:
            self._done = None
            done.set()


class _Protocol(H11Protocol):
    """uvicorn's, with an end for connections that ask for nothing, and for endless requests."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: object = None
        self._times = 0
        self._timer = self.loop.call_later(_IDLE, self._check)

    def _check(self) -> None:
        same = self.cycle is self._seen
        idle = self.cycle is None or self.cycle.response_complete
        self._seen, self._times = self.cycle, self._times + 1 if same else 0
        if same and (idle or self._times * _IDLE > _LONGEST):
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(_IDLE, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """uvicorn's server; a signal ends it and is not raised again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _of_faults(entry: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's is of a fault; a request that ends with the server is none."""
    return not entry.getMessage().startswith("Cancel ")


def listening(address: Address) -> socket.socket:
    """A socket at an address; UserError if it cannot be had."""
    where = f"--host {address.host}"
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{where}: not an address of this machine, nor a name of it.") from error
    family, kind, protocol, _, place = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
        opened.listen(CONNECTIONS)
    except OSError as error:
        opened.close()
        raise UserError(
            f"{where} --port {address.port}: cannot be listened at ({error.strerror}); choose "
            "another port, or --port 0 for a free one."
        ) from error
    return opened


def serve(
    folder: Path,
    address: Address,
    shown: Shown,
    *,
    accept: Path | None = None,
    gold: Path | None = None,
    most_bytes: int,
) -> None:
    """Serve the page of a results folder until a signal ends it.

    `gold`: folder with the data that predictions are scored with (None: the sample data). `accept`:
    folder for predictions that are kept. Raises UserError for what is wrong before it begins.
    """
    check_results(folder)
    with listening(address) as opened:
        if accept is not None:
            check_folder(accept)
        live = Live(_outermost(folder, accept), shown)
        scorer = Scorer(gold, shown.include, accept, most_bytes)
        config = uvicorn.Config(
            make_app(live, scorer, address.names),
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_ENDING,
            proxy_headers=False,
        )
        print(f"serving    {_url(address, opened)}  (Ctrl-C ends it)", flush=True)
        if not address.loopback:
            print(
                f"warning    --host {address.host}: whoever reaches this machine sees the results "
                "and can have predictions scored; there is no password and no encryption.",
                file=sys.stderr,
                flush=True,
            )
        logging.getLogger("uvicorn.error").addFilter(_of_faults)
        _Server(config).run(sockets=[opened])
    print("stopped", flush=True)


def _outermost(folder: Path, other: Path | None) -> list[Path]:
    """The folders to read: none that another one contains."""
    if other is None or other.resolve().is_relative_to(folder.resolve()):
        return [folder]
    return [other] if folder.resolve().is_relative_to(other.resolve()) else [folder, other]


def _url(address: Address, opened: socket.socket) -> str:
    port = opened.getsockname()[1]
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
    host = everywhere.get(address.host, address.host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
