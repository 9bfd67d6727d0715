"""Two pure helpers: what an item is, and what an error looks like."""

import base64
import binascii
import string
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

Modality: TypeAlias = Literal["text", "image", "audio"]
JsonObject: TypeAlias = dict[str, object]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
AUDIO_EXTENSIONS = (".wav", ".mp3", ".flac", ".ogg")

# Longer "URLs" are no URLs: browsers and servers stop at about 8,000 characters.
_MAX_URL = 8_192
# Only so much of a string is looked at, so that 10 MB cost no more than 1 kB.
_HEAD = 1_024
# The smallest complete picture among the formats below is a GIF of 26 bytes: 36 characters.
_MIN_BASE64 = 36
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/=\r\n")
# What "data:", "http" and base64 of the file signatures below begin with. Most texts end here.
_IMAGE_STARTS = frozenset("dDhHi/RUQST")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def detect_modality(item: str) -> Modality:
    """Decide whether one input string is a text, an image or a recording.

    An image is a `data:image/…` URI, an http(s) URL whose path ends in an image extension, or raw
    base64 of a PNG, JPEG, GIF, WebP, BMP or TIFF. A recording is a `data:audio/…` URI, or a URL
    whose path ends in an audio extension. Everything else is text, and so are sentences that merely
    mention such a thing. The cost does not grow with the length of the string.
    """
    if item[:1] not in _IMAGE_STARTS:
        return "text"
    head = item[:_HEAD]
    if head[:11].lower() == "data:image/":
        return "image"
    if head[:11].lower() == "data:audio/":
        return "audio"
    if head[:8].lower().startswith(("http://", "https://")):
        return _modality_of_url(item)
    return "image" if _is_base64_image(item, head) else "text"


def create_error_response(
    message: str, error_type: str, code: int, param: str | None = None
) -> JsonObject:
    """Make the one error object that callers see, in OpenAI's shape.

    Args:
        message: what is wrong and what to do about it; never an input, a key or a path.
        error_type: the machine-readable kind, such as `invalid_request_error`.
        code: the HTTP status that fits.
        param: the field or item at fault, such as `input[3]`.
    """
    return {"error": {"message": message, "type": error_type, "param": param, "code": code}}


def _modality_of_url(item: str) -> Modality:
    if len(item) > _MAX_URL or any(char.isspace() for char in item):
        return "text"
    try:
        parts = urlsplit(item)
        host = parts.hostname
    except ValueError:
        return "text"
    path = parts.path.lower() if host else ""
    if path.endswith(IMAGE_EXTENSIONS):
        return "image"
    return "audio" if path.endswith(AUDIO_EXTENSIONS) else "text"


def _is_base64_image(item: str, head: str) -> bool:
    if (
        len(item) < _MIN_BASE64
        or not _BASE64.issuperset(head)
        or not _BASE64.issuperset(item[-64:])
    ):
        return False
    start = head[:64].replace("\r", "").replace("\n", "")
    try:
        return _has_image_magic(base64.b64decode(start[: len(start) // 4 * 4], validate=True))
    except binascii.Error:
        return False


def _has_image_magic(start: bytes) -> bool:
    """Tell whether bytes begin like one of the accepted image formats (their file signatures)."""
    if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")):
        return True
    if start.startswith((b"II*\x00", b"MM\x00*")):
        return True
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    # "BM" alone is too common in text: the reserved zeros and the header's size decide.
    return (
        start.startswith(b"BM")
        and start[6:10] == bytes(4)
        and int.from_bytes(start[14:18], "little") in _BMP_HEADERS
    )
