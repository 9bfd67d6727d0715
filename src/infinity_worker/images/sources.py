"""What callers send in the place of an image: URLs, data URIs (RFC 2397) and raw base64."""

import binascii
from urllib.parse import unquote_to_bytes

import pybase64

from infinity_worker.errors import InvalidRequest, RequestTooLarge

_URL_SAFE = str.maketrans("-_", "+/")
_WEB = ("http://", "https://")
# As much of a string is looked at to tell what it is.
_HEAD = 64


def is_url(source: str) -> bool:
    """Tell whether an image is to be fetched."""
    return source[:8].lower().startswith(_WEB)


def bytes_of(source: str, max_bytes: int) -> bytes:
    """The bytes of a data URI or of raw base64.

    Base64 may be URL-safe, unpadded, percent-encoded or broken into lines, as clients send it. The
    media type is not believed: the bytes say what they are.

    Raises:
        InvalidRequest: it is neither.
        RequestTooLarge: it has more than `max_bytes` bytes.
    """
    if source[:5].lower() == "data:":
        head, comma, body = source.partition(",")
        if not comma:
            raise InvalidRequest("the data URI has no comma: write data:image/png;base64,…")
        if not head.lower().rstrip().endswith(";base64"):
            # Three characters stand for a byte, at most.
            check_size(len(body) // 3, max_bytes)
            return checked(unquote_to_bytes(body), max_bytes)
        source = body
    elif "://" in source[:_HEAD]:
        raise InvalidRequest("only http and https URLs are fetched")
    return checked(_from_base64(source, max_bytes), max_bytes)


def check_size(size: int, max_bytes: int) -> None:
    """Refuse an image for its size in bytes.

    Raises:
        RequestTooLarge: says the size and the limit.
    """
    if size > max_bytes:
        raise RequestTooLarge(
            f"the image has {size:,} bytes or more, at most {max_bytes:,} are accepted: send a "
            "smaller one"
        )


def checked(raw: bytes, max_bytes: int) -> bytes:
    """The same bytes, if they are as many as an image may have.

    Raises:
        InvalidRequest: there are none.
        RequestTooLarge: there are more than `max_bytes`.
    """
    if not raw:
        raise InvalidRequest("the image is empty (0 bytes)")
    check_size(len(raw), max_bytes)
    return raw


def _from_base64(text: str, max_bytes: int) -> bytes:
    # Line breaks and percent signs add to it: what is larger is too large in any case.
    check_size(len(text) // 6, max_bytes)
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    if "%" in text:
        text = unquote_to_bytes(text).decode("latin-1")
    text = "".join(text.split()).translate(_URL_SAFE).rstrip("=")
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(
            "this is no image: send a data URI, an http(s) URL, or the bytes as base64"
        ) from None
