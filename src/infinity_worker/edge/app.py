"""The edge as an application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from infinity_worker.edge import client_api, openai_api, worker_api
from infinity_worker.edge.access import KeyGuard
from infinity_worker.edge.jobs import QueueFullError
from infinity_worker.edge.schemas import correct
from infinity_worker.edge.state import Edge, EdgeSettings
from infinity_worker.edge.wire import json_response
from infinity_worker.edge.workers import TooManyWorkersError

__all__ = ["EdgeSettings", "create_app"]

_TOO_MANY = {
    QueueFullError: "Too many jobs have not finished yet.",
    TooManyWorkersError: "Too many workers are connected.",
}


def create_app(settings: EdgeSettings) -> FastAPI:
    """An edge with an empty queue; `app.state.edge.closing` ends all its open waits."""
    app = FastAPI(
        title="RunPod edge",
        summary="RunPod Serverless on one machine: what clients call, and what workers call.",
        lifespan=_lifespan,
    )
    app.state.edge = Edge(settings)
    clients = [Depends(KeyGuard(settings.api_key, "API key"))] if settings.api_key else []
    token = settings.worker_token
    workers = [Depends(KeyGuard(token, "worker token"))] if token else []
    endpoint = f"/v2/{settings.endpoint_id}"
    app.include_router(client_api.router, prefix=endpoint, dependencies=clients, tags=["jobs"])
    app.include_router(openai_api.router, prefix=endpoint, dependencies=clients, tags=["OpenAI"])
    app.include_router(openai_api.root_router, dependencies=clients, tags=["OpenAI"])
    app.include_router(worker_api.router, prefix=endpoint, dependencies=workers, tags=["workers"])
    describe = app.openapi
    app.openapi = lambda: correct(describe())  # type: ignore[method-assign]  # FastAPI's own way
    app.exception_handler(HTTPException)(_refusal)
    app.exception_handler(ClientDisconnect)(_nobody_there)
    for too_many in _TOO_MANY:
        app.exception_handler(too_many)(_too_many)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.edge.webhooks.close()


async def _refusal(request: Request, error: HTTPException) -> Response:
    headers = error.headers
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette names the methods of the first route only.
        headers = {"Allow": ", ".join(sorted(_allowed(request)))}
    return json_response({"error": error.detail}, error.status_code, headers)


def _allowed(request: Request) -> set[str]:
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in matching for method in route.methods or ()}


async def _too_many(_request: Request, error: Exception) -> Response:
    return json_response({"error": _TOO_MANY[type(error)]}, 429)


async def _nobody_there(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)
