"""Getting images from the web: a real server, the system's own resolver."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from corpus import encoded, picture
from fakes.image_host import ImageHost
from infinity_worker.errors import InvalidRequest, RequestTooLarge
from infinity_worker.images.fetching import Fetcher, is_public

MAX_BYTES = 1_000_000
# Port Control Protocol anycast (RFC 7723): public by the rule, and nobody's web server.
PUBLIC = "192.0.0.9"
BOUND_S = 10.0


@pytest.fixture
async def host() -> AsyncIterator[ImageHost]:
    async with ImageHost(encoded(picture(), "PNG")) as host:
        yield host


def port_of(host: ImageHost) -> int:
    return urlsplit(host.url).port or 0


async def fetch(url: str, *, allowed: Sequence[str] = (), timeout_s: float = BOUND_S) -> bytes:
    fetcher = Fetcher(max_bytes=MAX_BYTES, timeout_s=timeout_s, allowed_hosts=allowed)
    try:
        async with fetcher.fetched(url) as raw:
            return raw
    finally:
        await fetcher.close()


@pytest.mark.parametrize(
    "path", ["/ok.png", "/hops/1", "/hops/5", "/coded/gzip", "/coded/identity"]
)
async def test_pictures_arrive(host: ImageHost, path: str) -> None:
    assert await fetch(host.url + path, allowed=["127.0.0.1"]) == host.picture
    assert "Cookie" not in host.headers


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status/404", "answered HTTP 404"),
        ("/status/500", "answered HTTP 500"),
        ("/status/204", "answered HTTP 204"),
        ("/hops/6", "more than 5 redirects"),
        ("/nowhere", "leads nowhere"),
        ("/coded/br", "compresses it"),
        ("/coded/deflate", "damaged data"),
        ("/cut", "connection to its server failed"),
    ],
)
async def test_what_goes_wrong_is_named(host: ImageHost, path: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        await fetch(host.url + path, allowed=["127.0.0.1"], timeout_s=BOUND_S)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("path", ["/bomb", "/endless", "/claims/1000001"])
async def test_too_many_bytes_are_never_held(host: ImageHost, path: str) -> None:
    with pytest.raises(RequestTooLarge, match="at most 1,000,000"):
        await fetch(host.url + path, allowed=["127.0.0.1"])


async def test_a_slow_server_has_so_much_time(host: ImageHost) -> None:
    with pytest.raises(InvalidRequest, match=r"within 0\.3 s"):
        await fetch(host.url + "/slow", allowed=["127.0.0.1"], timeout_s=0.3)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:secret@127.0.0.1/a.png", "user name or password"),
        ("http://user@127.0.0.1/a.png", "user name or password"),
        ("http:///a.png", "URL"),
        ("http://", "URL"),
        ("http://[::1/a.png", "not valid"),
        ("http://host:99999/a.png", "not valid"),
        ("http://ho st/a.png", "not valid|unknown"),
        (f"http://host/{'a' * 9_000}", "longer than 8,192"),
        ("http://no-such-host.invalid/a.png", "host is unknown"),
    ],
)
async def test_urls_that_are_not_fetched(url: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        await fetch(url, allowed=["127.0.0.1"])
    assert "secret" not in str(caught.value)


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        with pytest.raises(InvalidRequest, match="connection to its server failed"):
            await fetch(url, allowed=["127.0.0.1"])


async def test_so_many_at_once(host: ImageHost) -> None:
    fetcher = Fetcher(max_bytes=MAX_BYTES, at_once=3, allowed_hosts=["127.0.0.1"])

    async def one(number: int) -> None:
        async with fetcher.fetched(f"{host.url}/ok{number}") as raw:
            assert raw == host.picture

    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(*map(one, range(20)))
    await fetcher.close()
    assert host.at_once == 3
    assert len(host.requests) == 20


async def test_ambient_proxies_are_ignored(
    host: ImageHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert await fetch(host.url + "/ok", allowed=["127.0.0.1"]) == host.picture


@pytest.mark.parametrize("allowed", ["{host}", "{host}:{port}"])
async def test_a_host_is_allowed_with_or_without_its_port(host: ImageHost, allowed: str) -> None:
    names = [allowed.format(host="127.0.0.1", port=port_of(host))]
    assert await fetch(host.url + "/ok", allowed=names) == host.picture
    with pytest.raises(InvalidRequest, match="public address"):
        await fetch(host.url + "/ok", allowed=["127.0.0.1:1", "localhost"])


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "0.0.0.0",  # noqa: S104  # an address to refuse
    "0",
    "localhost",
    "LOCALHOST.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "①②⑦.⓪.⓪.①",  # digits that are made plain on the way
    "127。0。0。1",
]


@pytest.mark.parametrize("name", LOOPBACK)
async def test_no_form_of_loopback_is_connected_to(host: ImageHost, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await fetch(f"http://{name}:{port_of(host)}/ok", timeout_s=5.0)
    assert host.connections == 0


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_they_would_be_reached_if_they_were_allowed(host: ImageHost, name: str) -> None:
    assert await fetch(f"http://{name}:{port_of(host)}/ok", allowed=[name]) == host.picture


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  # an address to refuse
        "255.255.255.255",
        "224.0.0.1",
        "192.0.2.1",
        "fe80::1",
        "fe80::1%lo",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "::",
        "::ffff:169.254.169.254",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b::10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2001:0:7f00:1:0:0:f5ff:fffe",
        "not an address",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::"]
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://[::ffff:169.254.169.254]/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
    ],
)
async def test_the_metadata_service_and_its_like_are_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"public address|not valid|unknown"):
        await fetch(url, timeout_s=BOUND_S)


@pytest.mark.parametrize("target", ["http://{private}/ok", "//{private}/ok", "file:///etc/passwd"])
async def test_every_redirect_is_checked(host: ImageHost, target: str) -> None:
    async with ImageHost(host.picture) as private:
        host.elsewhere = target.format(private=private.url.removeprefix("http://"))
        with pytest.raises(InvalidRequest, match=r"public address|only http and https"):
            await fetch(f"{host.url}/elsewhere", allowed=[f"127.0.0.1:{port_of(host)}"])
        assert private.connections == 0


class Rebinding(AbstractResolver):
    """A name that means another address at each look-up."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self._answers[min(self.lookups, len(self._answers) - 1)]
        self.lookups += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=family or socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in answer
        ]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "answers", [[[PUBLIC], ["127.0.0.1"]], [[PUBLIC, "127.0.0.1"]], [["127.0.0.1", PUBLIC]]]
)
async def test_a_name_that_changes_its_address_between_look_up_and_connection(
    host: ImageHost, answers: Sequence[Sequence[str]]
) -> None:
    resolver = Rebinding(*answers)
    fetcher = Fetcher(max_bytes=MAX_BYTES, timeout_s=1.0, resolver=resolver)
    with pytest.raises(InvalidRequest):
        async with fetcher.fetched(f"http://rebinding.example:{port_of(host)}/ok"):
            pass
    await fetcher.close()
    assert resolver.lookups == 1
    assert host.connections == 0
