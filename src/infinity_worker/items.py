"""The shapes in which clients send one item, brought down to a text, an image or a recording.

"a text or an image"
{"text": …}  {"image": …}  {"url": …}  {"bytes": …}                       Jina
{"type": "text", "text": …}                                               OpenAI, vLLM, Cohere
{"type": "image_url", "image_url": … or {"url": …}}                       likewise
{"type": "image_base64", "image_base64": …}                               Voyage
{"audio": …}  {"type": "audio_url", "audio_url": … or {"url": …}}         Jina, vLLM
{"type": "input_audio", "input_audio": {"data": …}}                       OpenAI
{"content": [one of these]}                                               Cohere, Voyage
"""

from collections.abc import Mapping

from infinity_worker.utils import Modality

SEND_STRINGS = (
    "token ids are not accepted, the model's own tokenizer reads text: send strings "
    "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)
_FUSED = (
    "several contents in one item would make one embedding of all of them, which is not supported: "
    "send each text and each image as an item of its own"
)
_EXPECTED = 'a string, {"text": …} or {"image": …}'
_MODALITY: Mapping[str, Modality] = {
    "text": "text",
    "image": "image",
    "url": "image",
    "bytes": "image",
    "image_url": "image",
    "image_base64": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
# Where the content of a field may be an object, the key of it in there.
_INNER: Mapping[str, str] = {"image_url": "url", "audio_url": "url", "input_audio": "data"}


class MalformedItem(ValueError):
    """An item has none of the accepted shapes; the message says what would do, and no content."""


def read_item(value: object) -> tuple[Modality | None, str]:
    """What is to be embedded, and as what where the shape says so.

    Raises:
        MalformedItem: it has none of the accepted shapes.
    """
    if isinstance(value, str):
        return None, value
    if is_token_ids(value):
        raise MalformedItem(SEND_STRINGS)
    if not isinstance(value, dict):
        raise MalformedItem(f"must be {_EXPECTED}, not {kind(value)}")
    parts = value.get("content")
    if isinstance(parts, list):
        if len(parts) > 1:
            raise MalformedItem(_FUSED)
        # One level only: a content in a content is nobody's shape.
        if parts and isinstance(parts[0], dict) and "content" not in parts[0]:
            return _from_object(parts[0])
    return _from_object(value)


def is_token_ids(value: object) -> bool:
    """Tell whether a value is a list of token ids, as LangChain sends by default."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], int)
        and not isinstance(value[0], bool)
    )


def kind(value: object) -> str:
    """The JSON name of a value's type; the value itself never gets into a message."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


def _from_object(item: Mapping[str, object]) -> tuple[Modality, str]:
    named = item.get("type")
    present = [name for name in _MODALITY if item.get(name) is not None]
    if isinstance(named, str) and named in _MODALITY:
        if present != [named] and named in present:
            raise MalformedItem(_FUSED)
        if named not in present:
            raise MalformedItem(f"is of type `{named}` and has no field `{named}`")
    if not present:
        raise MalformedItem(f"has no text and no image: send {_EXPECTED}")
    if len(present) > 1:
        raise MalformedItem(_FUSED)
    name = present[0]
    content = item[name]
    if isinstance(content, dict) and name in _INNER:
        content = content.get(_INNER[name])
    if not isinstance(content, str):
        raise MalformedItem(f"`{name}` must be a string, not {kind(content)}")
    return _MODALITY[name], content
