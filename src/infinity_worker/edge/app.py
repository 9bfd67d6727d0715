"""The edge as an application."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from infinity_worker.edge import client_api, worker_api
from infinity_worker.edge.state import Edge, EdgeSettings
from infinity_worker.edge.wire import json_response

__all__ = ["EdgeSettings", "create_app"]


def create_app(settings: EdgeSettings) -> FastAPI:
    """An edge with an empty queue; `app.state.edge.closing` ends all its open waits."""
    app = FastAPI(title="RunPod edge", openapi_url=None)
    app.state.edge = Edge(settings)
    app.include_router(client_api.router)
    app.include_router(client_api.root_router)
    app.include_router(worker_api.router)
    app.exception_handler(HTTPException)(_refusal)
    app.exception_handler(ClientDisconnect)(_nobody_there)
    return app


async def _refusal(_request: Request, error: HTTPException) -> Response:
    return json_response({"error": error.detail}, error.status_code)


async def _nobody_there(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)
