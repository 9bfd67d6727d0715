"""An edge's endpoint as both sides see it, called by hand."""

import json
from collections.abc import Callable
from typing import Any

import aiohttp

BOUND_S = 20.0
"""Ends a test that waits for what never comes."""


class Api:
    """One endpoint's URLs, and what is done with them again and again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.root = url
        self.url = f"{url}/v2/local"

    async def json(self, method: str, path: str, **body: Any) -> Any:
        async with self.session.request(method, self.url + path, **body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def status(self, method: str, path: str, **body: Any) -> tuple[int, bytes]:
        async with self.session.request(method, self.url + path, **body) as response:
            return response.status, await response.read()

    async def run(self, job_input: Any) -> str:
        job_id: str = (await self.json("POST", "/run", json={"input": job_input}))["id"]
        return job_id

    async def done(self, worker: str, job_id: str, result: str) -> int:
        """Reports as the SDK does: JSON under the name of form data."""
        form = {"Content-Type": "application/x-www-form-urlencoded", "X-Request-ID": job_id}
        path = f"/job-done/{worker}/{job_id}?gpu=cpu&isStream=false"
        return (await self.status("POST", path, data=result.encode(), headers=form))[0]

    async def health(self, holds: Callable[[dict[str, Any]], bool]) -> None:
        """Asks until a condition holds: the other requests that make it true are on their way."""
        while not holds(await self.json("GET", "/health")):
            pass

    async def serve_one(self, result: dict[str, Any], worker: str = "w") -> Any:
        """Takes a job, reports that result and returns the job."""
        job = await self.json("GET", f"/job-take/{worker}?gpu=cpu&job_in_progress=0")
        assert await self.done(worker, job["id"], json.dumps(result)) == 200
        return job
