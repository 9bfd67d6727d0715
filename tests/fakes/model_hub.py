"""A small server that speaks as much of the model hub's API as a download needs.

As huggingface_hub 0.36 asks for it: the list of files, a repository's commit, and the files, whose
answers carry the commit and an ETag.
"""

import hashlib
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub:
    """One fake hub; an asynchronous context manager.

    Args:
        repositories: files by name, by repository.

    Attributes:
        url: where it listens, once entered.
        tokens: the `Authorization` headers it was sent.
        downloads: the files that were asked for.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.url = ""
        self.tokens: set[str] = set()
        self.downloads: list[str] = []
        self._repositories = repositories
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.get("/api/models/{org}/{name}/tree/{revision}", self._tree),
                web.get("/api/models/{org}/{name}/revision/{revision}", self._info),
                web.get("/{org}/{name}/resolve/{revision}/{file:.*}", self._file),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner:
            await self._runner.cleanup()

    def _files(self, request: web.Request) -> Mapping[str, bytes]:
        self.tokens.add(request.headers.get("Authorization", ""))
        files = self._repositories.get("{org}/{name}".format_map(request.match_info))
        if files is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        return files

    async def _tree(self, request: web.Request) -> web.Response:
        return web.json_response(
            [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in self._files(request).items()
            ]
        )

    async def _info(self, request: web.Request) -> web.Response:
        files = [{"rfilename": name} for name in self._files(request)]
        name = "{org}/{name}".format_map(request.match_info)
        return web.json_response({"id": name, "sha": COMMIT, "siblings": files})

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        content = self._files(request)[name]
        if request.method == "GET":
            self.downloads.append(name)
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT}
        return web.Response(body=content, headers=headers)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
