"""Who may call: clients with the API key, workers with their token."""

import hmac

from fastapi import HTTPException, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase


class KeyGuard(SecurityBase):
    """Lets a request in that carries the key, as a bearer token or as it is.

    Args:
        key: The one that is right.
        name: What the API's description calls it.
    """

    def __init__(self, key: str, name: str) -> None:
        self.model = HTTPBearer()
        self.scheme_name = name
        self._key = key.encode()

    async def __call__(self, request: Request) -> None:
        """Refuses a request without the key.

        Raises:
            HTTPException: With 401.
        """
        given = request.headers.get("authorization", "")
        scheme, _, rest = given.partition(" ")
        if scheme.lower() == "bearer":
            given = rest.strip()
        # Headers are bytes that starlette reads as Latin-1.
        if not hmac.compare_digest(given.encode("latin-1"), self._key):
            headers = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "The API key is missing or wrong.", headers)
