"""The HTTP application: `create_app` puts the parts together, the lifespan starts and stops what lives behind them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from model.redis_clients import async_client
from model.redis_server import URL_VARIABLE, open_redis
from service.http import errors, routes_admin, routes_boards, routes_pins, routes_system, routes_users
from service.http.dependencies import Parts
from service.http.metrics import Metrics, RequestTimer
from service.http.middleware import Admission, BodyLimit, RequestContext
from service.http.openapi import describe_api
from service.http.rate_limit import Limiter, parse_limits
from service.http.security import Gate, parse_keys
from service.live.failures import Overloaded
from service.live.live import Live
from service.online.child_worker import ChildWorker, worker_command
from service.online.jobs import Jobs
from service.settings import Settings

DESCRIPTION = """Related pins and home feeds from a PinSage model; a pin that is put in takes part at once.

Bodies are JSON whatever their content type says. Errors are RFC 9457 problems with a stable `type`. Where keys are set,
send `Authorization: Bearer KEY` or `X-API-Key: KEY`; the scope that a call needs stands at it as `x-scope`."""

Answer = Callable[[Request, Exception], Awaitable[Response]]

ROUTERS = (
    routes_pins.lists,
    routes_pins.reads,
    routes_pins.writes,
    routes_users.lists,
    routes_users.writes,
    routes_boards.writes,
    routes_admin.admin,
    routes_system.probes,
    routes_system.reads,
    routes_system.pages,
)


def create_app(settings: Settings, environ: Mapping[str, str] = os.environ) -> FastAPI:
    """The service as an ASGI application; nothing is opened before its lifespan starts.

    Raises UserError when the keys cannot be read.
    """
    metrics = Metrics()
    app = FastAPI(
        title="pinsage",
        version=version("pinsage"),
        description=DESCRIPTION,
        lifespan=_lifespan(settings, environ, metrics),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        middleware=_middleware(settings, metrics),
    )
    app.state.gate = Gate(parse_keys(settings.keys.get_secret_value() if settings.keys else None))
    app.state.limiter = Limiter({}, None, metrics.count_shed)  # until Redis is open, nothing is answered
    app.state.draining = False
    for kind in (errors.Problem, *errors.FAILURES):
        app.add_exception_handler(kind, errors.answer_problem if kind is errors.Problem else errors.answer_failure)
    app.add_exception_handler(Overloaded, _counted(errors.answer_failure, metrics))
    app.add_exception_handler(HTTPException, errors.answer_http_error)
    app.add_exception_handler(405, _answer_wrong_method)
    app.add_exception_handler(RequestValidationError, errors.answer_invalid)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/console", routes_system.Files(directory=routes_system.CONSOLE))
    if settings.images_dir is not None:
        app.mount("/images", routes_system.Files(directory=settings.images_dir, check_dir=False))
    app.openapi = lambda: describe_api(app)  # type: ignore[method-assign]
    return app


def _counted(answer: Answer, metrics: Metrics) -> Answer:
    """The same handler, for what is turned away."""

    async def counting(request: Request, error: Exception) -> Response:
        metrics.count_shed("queue")
        return await answer(request, error)

    return counting


async def _answer_wrong_method(request: Request, error: Exception) -> Response:
    """The framework names the methods of one route only; a path may have several."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    there = {method for route in routes if route.path_regex.match(request.url.path) for method in route.methods or ()}
    headers = {"allow": ", ".join(sorted(there or {"GET", "HEAD"}))}
    return errors.Problem("method-not-allowed", headers=headers).response(errors.request_id_of(request))


def _middleware(settings: Settings, metrics: Metrics) -> list[Middleware]:
    """From outside to inside."""
    budget = settings.max_body_bytes * settings.max_inflight
    return [
        Middleware(RequestContext),
        Middleware(RequestTimer, metrics=metrics),
        Middleware(
            BodyLimit,
            limit=settings.max_body_bytes,
            seconds=settings.body_seconds,
            budget=budget,
            shed=metrics.count_shed,
        ),
        Middleware(Admission, places=settings.max_inflight, shed=metrics.count_shed),
    ]


def _lifespan(settings: Settings, environ: Mapping[str, str], metrics: Metrics) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.parts = await _start(app, settings, environ, metrics, stack)
            yield
            app.state.draining = True

    return lifespan


async def _start(
    app: FastAPI, settings: Settings, environ: Mapping[str, str], metrics: Metrics, stack: AsyncExitStack
) -> Parts:
    """Open Redis, the catalogue and the worker; the stack closes them in the opposite order."""
    if settings.redis_url is not None:
        environ = {**environ, URL_VARIABLE: settings.redis_url.get_secret_value()}
    source = stack.enter_context(open_redis(settings.home, environ))
    client = async_client(source)
    stack.push_async_callback(client.aclose)
    app.state.limiter = Limiter(parse_limits(settings.rate_limit), client, metrics.count_shed)
    live = Live(
        settings.home,
        source,
        max_live_pins=settings.max_live_pins,
        max_live_bytes=settings.max_live_bytes,
        native_threads=settings.native_threads,
        queue_seconds=settings.queue_seconds,
    )
    stack.push_async_callback(live.stop)
    await live.start()
    worker = _child_worker(settings, environ)
    if worker is not None:
        worker.start()
        stack.push_async_callback(worker.stop)
    parts = Parts(live=live, jobs=Jobs(client), metrics=metrics, worker=worker)
    metrics.watch(parts.status)
    return parts


def _child_worker(settings: Settings, environ: Mapping[str, str]) -> ChildWorker | None:
    command = worker_command(settings.home) if settings.worker == "child" else None
    if command is None:
        return None
    return ChildWorker(command, log=settings.home / "logs" / "worker.log", environ=environ)
