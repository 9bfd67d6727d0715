"""Every accepted shape of an embedding request, normalised to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from infinity_worker.errors import InvalidRequest, RequestError
from infinity_worker.items import SEND_STRINGS, MalformedItem, is_token_ids, kind, read_item
from infinity_worker.options import EmbeddingType, EncodingFormat, OnError, Options
from infinity_worker.utils import Modality, detect_modality

# The fields that may hold the items, and what all of them are then.
_EVERYWHERE: Mapping[str, Modality | None] = {
    "input": None,
    "inputs": None,
    "texts": "text",
    "images": "image",
    "messages": None,
}
_STANDARD: Mapping[str, Modality | None] = {**_EVERYWHERE, "text": "text", "image": "image"}


class Item(NamedTuple):
    """One thing to embed: a text, or an image as a data URI, a URL or raw base64."""

    modality: Modality
    content: str


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What every embedding request comes down to.

    Attributes:
        items: what to embed, in the caller's order.
        input_field: the field that the items came in, for error messages.
        model: a served name, or None for the default model.
        encoding_format: `float` (JSON numbers) or `base64` (little-endian float32).
        dimensions: how many leading numbers of each embedding to keep.
        types: what the numbers of the embeddings are to be, if not float32 alone.
        prompt: put before each text.
        purpose: the field that says what the texts are for, and what it says.
        cuts: whether a text that is too long for the model is cut, or refused.
        on_error: whether a bad item fails the request, or has null for its embedding.
        failures: the bad items found so far, by their positions in the caller's list; none of
            them is in `items`. There are some only where `on_error` is `null`.
    """

    items: tuple[Item, ...]
    input_field: str = "input"
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None
    types: tuple[EmbeddingType, ...] = ("float",)
    prompt: str | None = None
    purpose: tuple[str, str] | None = None
    cuts: bool = True
    on_error: OnError = "fail"
    failures: Mapping[int, RequestError] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many items the caller sent."""
        return len(self.items) + len(self.failures)

    @property
    def positions(self) -> Sequence[int]:
        """Where each of `items` stands in the caller's list."""
        if not self.failures:
            return range(len(self.items))
        return [at for at in range(self.count) if at not in self.failures]

    @property
    def prompting(self) -> tuple[str | None, tuple[str, str] | None]:
        """What the caller says of what is put before the texts."""
        return self.prompt, self.purpose

    def param(self, position: int) -> str:
        """What an error calls the item at a position of the caller's list."""
        return f"{self.input_field}[{position}]"

    def without(self, failures: Mapping[int, RequestError]) -> Self:
        """The request without bad items, for a caller who wants the good ones nevertheless.

        Raises:
            RequestError: the first of them, for any other caller.
        """
        if not failures:
            return self
        if self.on_error == "fail":
            raise failures[min(failures)]
        kept = [
            item for at, item in zip(self.positions, self.items, strict=True) if at not in failures
        ]
        return replace(self, items=tuple(kept), failures={**self.failures, **failures})

    @classmethod
    def from_openai(cls, body: object) -> Self:
        """Read the body of `/v1/embeddings`.

        Raises:
            InvalidRequest: a field is missing or malformed; names the field.
        """
        return cls._read(_as_object(body, "the request body"), _EVERYWHERE)

    @classmethod
    def from_standard(cls, job_input: object) -> Self:
        """Read a `/run` or `/runsync` input: `input`, `text` or `image`, a string or a list.

        Raises:
            InvalidRequest: a field is missing or malformed; names the field.
        """
        return cls._read(_as_object(job_input, "input"), _STANDARD)

    @classmethod
    def _read(cls, body: Mapping[str, object], fields: Mapping[str, Modality | None]) -> Self:
        # Clients send null for options that they leave to the server.
        given = {name: value for name, value in body.items() if value is not None}
        present = [name for name in fields if name in given]
        if len(present) != 1:
            raise _not_one(present, fields)
        name = present[0]
        options = Options.read(given)
        modality = _fixed_modality(name, fields[name], options.modality)
        value = _content_of_message(given[name]) if name == "messages" else given[name]
        items, failures = _read_items(value, name, modality, options.on_error)
        types = tuple(kind for kind in options.types if kind != "base64")
        return cls(
            items=items,
            input_field=name,
            model=options.model,
            encoding_format="base64" if "base64" in options.types else options.encoding_format,
            dimensions=options.numbers,
            types=types or ("float",),
            prompt=options.prompt,
            purpose=options.purpose,
            cuts=options.cuts(),
            on_error=options.on_error,
            failures=failures,
        )


def _not_one(present: Sequence[str], fields: Mapping[str, object]) -> InvalidRequest:
    """What is wrong where the items come in no field, or in more than one."""
    if present:
        listed = ", ".join(f"`{name}`" for name in present)
        return InvalidRequest(f"{listed} are more than one: send one of them", present[0])
    usual = [name for name in ("input", "text", "image") if name in fields]
    choice = " or ".join(f"`{name}`" for name in usual)
    one_of = "in one of " if len(usual) > 1 else "in "
    return InvalidRequest(f"{choice} is missing: send what to embed {one_of}{choice}", usual[0])


def _as_object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequest(
            f'{what} must be a JSON object such as {{"input": "a text"}}, not {kind(value)}',
            "input",
        )
    return value


def _fixed_modality(
    name: str, named: Modality | None, explicit: Modality | None
) -> Modality | None:
    """The modality that holds for all items, or None where each is to be looked at."""
    if named and explicit and named != explicit:
        raise InvalidRequest(
            f"modality: `{explicit}` contradicts the field `{name}`: leave one of them out",
            "modality",
        )
    return explicit or named


def _content_of_message(messages: object) -> object:
    """The one item in `messages`, as vLLM's clients send it."""
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise InvalidRequest("messages: send one message, of a user", "messages")
    message = messages[0]
    if message.get("role", "user") != "user":
        raise InvalidRequest("messages: only a user's message is embedded", "messages")
    content = message.get("content")
    return content if isinstance(content, str) else {"content": content}


def _read_items(
    value: object, name: str, modality: Modality | None, on_error: OnError
) -> tuple[tuple[Item, ...], Mapping[int, RequestError]]:
    """The items, and those that are malformed where the caller wants the others nevertheless."""
    if isinstance(value, str | dict):
        return (_read_item(value, name, modality),), {}
    if not isinstance(value, list):
        raise InvalidRequest(f"{name}: must be a string or a list, not {kind(value)}", name)
    if not value:
        raise InvalidRequest(f"{name}: the list is empty: send at least one item", name)
    if is_token_ids(value):
        raise InvalidRequest(f"{name}: {SEND_STRINGS}", name)
    items: list[Item] = []
    failures: dict[int, RequestError] = {}
    for position, item in enumerate(value):
        # The common case first: lists of thousands of plain texts are read here.
        if isinstance(item, str) and item.isascii():
            items.append(Item(modality or detect_modality(item), item))
            continue
        try:
            items.append(_read_item(item, f"{name}[{position}]", modality))
        except InvalidRequest as error:
            if on_error == "fail":
                raise
            failures[position] = error
    return tuple(items), failures


def _read_item(value: object, param: str, modality: Modality | None) -> Item:
    try:
        shown, content = read_item(value)
    except MalformedItem as error:
        raise InvalidRequest(f"{param}: {error}", param) from None
    if shown and modality and shown != modality:
        raise InvalidRequest(
            f"{param}: its shape says {shown}, the request says that all items are {modality}s",
            param,
        )
    check_unicode(content, param)
    return Item(shown or modality or detect_modality(content), content)


def check_unicode(value: str, param: str) -> None:
    """Refuse half a surrogate pair, which UTF-8 cannot write.

    Raises:
        InvalidRequest: names the place.
    """
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param}: character {error.start} is half of a surrogate pair, which is no valid "
            "Unicode: the text was cut or decoded wrongly before it was sent",
            param,
        ) from None
