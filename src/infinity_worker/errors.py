"""Errors that are the caller's fault.

RequestError
├── InvalidRequest    400  a field or an item is missing or malformed
├── Unauthorized      401  the API key is missing or wrong
├── ModelNotFound     404  no such model is served
├── RouteNotFound     404  no such route
├── MethodNotAllowed  405  the route takes another method
├── RequestTooSlow    408  the body did not come in time
├── RequestTooLarge   413  too many items, or one that is too large
└── UnknownEncoding   415  the body is compressed in a way that is not read
"""

from typing import ClassVar


class RequestError(Exception):
    """The caller's fault. `param` names the field or item, as in `input[3]`."""

    code: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """A field or an item is missing or malformed."""


class ModelNotFound(RequestError):
    """The model is not served; the message lists those that are."""

    code = 404
    type = "model_not_found"


class RouteNotFound(RequestError):
    """The route is not served; the message lists those that are."""

    code = 404
    type = "not_found_error"


class RequestTooLarge(RequestError):
    """Too many items, or one that is too large."""

    code = 413
    type = "request_too_large"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    code = 401
    type = "authentication_error"


class MethodNotAllowed(RequestError):
    """The route takes another method."""

    code = 405


class RequestTooSlow(RequestError):
    """The body did not come in time."""

    code = 408


class UnknownEncoding(RequestError):
    """The body is compressed in a way that is not read."""

    code = 415
