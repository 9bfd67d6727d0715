"""Every accepted request shape, normalised to one.

Errors that are the caller's fault:

RequestError
├── InvalidRequest    400  a field or an item is missing or malformed
├── ModelNotFound     404  no such model is served
├── RouteNotFound     404  no such route
└── RequestTooLarge   413  too many items, or one that is too large
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from infinity_worker.utils import Modality, detect_modality

EncodingFormat: TypeAlias = Literal["float", "base64"]

_SEND_STRINGS = (
    "token ids are not accepted, the model's own tokenizer reads text: send strings "
    "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


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


class Item(NamedTuple):
    """One thing to embed: a text, or an image as a data URI, a URL or raw base64."""

    modality: Modality
    content: str


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What every embedding request comes down to.

    Attributes:
        items: what to embed, in the caller's order.
        field: the field that the items came in, for error messages.
        model: a served name, or None for the default model.
        encoding_format: `float` (JSON numbers) or `base64` (little-endian float32).
        dimensions: how many leading numbers of each embedding to keep.
    """

    items: tuple[Item, ...]
    field: str = "input"
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None

    @classmethod
    def from_openai(cls, body: object) -> Self:
        """Read the body of `/v1/embeddings`.

        Raises:
            InvalidRequest: a field is missing or malformed; names the field.
        """
        return cls._read(_as_object(body, "the request body"), fields=("input",))

    @classmethod
    def from_standard(cls, job_input: object) -> Self:
        """Read a `/run` or `/runsync` input: `input`, `text` or `image`, a string or a list.

        Raises:
            InvalidRequest: a field is missing or malformed; names the field.
        """
        return cls._read(_as_object(job_input, "input"), fields=("input", "text", "image"))

    @classmethod
    def _read(cls, body: Mapping[str, object], fields: Sequence[str]) -> Self:
        # Clients send null for options that they leave to the server.
        given = {name: value for name, value in body.items() if value is not None}
        present = [name for name in fields if name in given]
        if len(present) != 1:
            choice = " or ".join(f"`{name}`" for name in fields)
            problem = "is missing" if not present else "are more than one"
            raise InvalidRequest(
                f"{', '.join(f'`{name}`' for name in present) or choice} {problem}: "
                f"send what to embed in {'one of ' if len(fields) > 1 else ''}{choice}",
                present[0] if present else fields[0],
            )
        options = _Options.read(given)
        field = present[0]
        return cls(
            items=_read_items(given[field], field, _fixed_modality(field, options.modality)),
            field=field,
            model=options.model,
            encoding_format=options.encoding_format,
            dimensions=options.dimensions,
        )


class _Options(BaseModel):
    """The fields beside the items. Unknown ones are ignored, as OpenAI's clients expect."""

    # pydantic's own `protected_namespaces` would warn about a field called `model`.
    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, protected_namespaces=(), hide_input_in_errors=True
    )

    model: str | None = None
    modality: Modality | None = None
    encoding_format: EncodingFormat = "float"
    dimensions: PositiveInt | None = None

    @classmethod
    def read(cls, given: Mapping[str, object]) -> Self:
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise InvalidRequest(f"{name}: {first['msg']}", name) from None


def _as_object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequest(
            f'{what} must be a JSON object such as {{"input": "a text"}}, not {_kind(value)}',
            "input",
        )
    return value


def _fixed_modality(field: str, explicit: Modality | None) -> Modality | None:
    """The modality that holds for all items, or None where each is to be looked at."""
    named: Modality | None = "text" if field == "text" else "image" if field == "image" else None
    if named and explicit and named != explicit:
        raise InvalidRequest(
            f"modality: `{explicit}` contradicts the field `{field}`: leave one of them out",
            "modality",
        )
    return explicit or named


def _read_items(value: object, field: str, modality: Modality | None) -> tuple[Item, ...]:
    if isinstance(value, str):
        return (_read_item(value, field, modality),)
    if not isinstance(value, list):
        raise InvalidRequest(
            f"{field}: must be a string or a list of strings, not {_kind(value)}", field
        )
    if not value:
        raise InvalidRequest(f"{field}: the list is empty: send at least one item", field)
    if _is_token_ids(value):
        raise InvalidRequest(f"{field}: {_SEND_STRINGS}", field)
    items: list[Item] = []
    for position, item in enumerate(value):
        # The common case first: lists of thousands of plain texts are read here.
        if isinstance(item, str) and item.isascii():
            items.append(Item(modality or detect_modality(item), item))
        else:
            items.append(_read_item(item, f"{field}[{position}]", modality))
    return tuple(items)


def _read_item(value: object, param: str, modality: Modality | None) -> Item:
    if not isinstance(value, str):
        hint = _SEND_STRINGS if _is_token_ids(value) else f"must be a string, not {_kind(value)}"
        raise InvalidRequest(f"{param}: {hint}", param)
    if not value.isascii():
        _check_unicode(value, param)
    return Item(modality or detect_modality(value), value)


def _check_unicode(value: str, param: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param}: character {error.start} is half of a surrogate pair, which is no valid "
            "Unicode: the text was cut or decoded wrongly before it was sent",
            param,
        ) from None


def _is_token_ids(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], int)
        and not isinstance(value[0], bool)
    )


def _kind(value: object) -> str:
    """The JSON name of a value's type; the value itself never gets into a message."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
