"""Every accepted shape of an embedding request, normalised to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from infinity_worker.errors import InvalidRequest, RequestError
from infinity_worker.items import SEND_STRINGS, MalformedItem, is_token_ids, kind, read_item
from infinity_worker.utils import Modality, detect_modality

EncodingFormat: TypeAlias = Literal["float", "base64"]
OnError: TypeAlias = Literal["fail", "null"]


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
        on_error: whether a bad item fails the request, or has null for its embedding.
        failures: the bad items found so far, by their positions in the caller's list; none of
            them is in `items`. There are some only where `on_error` is `null`.
    """

    items: tuple[Item, ...]
    input_field: str = "input"
    model: str | None = None
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None
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
        name = present[0]
        items, failures = _read_items(given[name], name, options)
        return cls(
            items=items,
            input_field=name,
            model=options.model,
            encoding_format=options.encoding_format,
            dimensions=options.dimensions,
            on_error=options.on_error,
            failures=failures,
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
    on_error: OnError = "fail"

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
            f'{what} must be a JSON object such as {{"input": "a text"}}, not {kind(value)}',
            "input",
        )
    return value


def _fixed_modality(name: str, explicit: Modality | None) -> Modality | None:
    """The modality that holds for all items, or None where each is to be looked at."""
    named: Modality | None = "text" if name == "text" else "image" if name == "image" else None
    if named and explicit and named != explicit:
        raise InvalidRequest(
            f"modality: `{explicit}` contradicts the field `{name}`: leave one of them out",
            "modality",
        )
    return explicit or named


def _read_items(
    value: object, name: str, options: _Options
) -> tuple[tuple[Item, ...], Mapping[int, RequestError]]:
    """The items, and those that are malformed where the caller wants the others nevertheless."""
    modality = _fixed_modality(name, options.modality)
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
            if options.on_error == "fail":
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
    if not content.isascii():
        _check_unicode(content, param)
    return Item(shown or modality or detect_modality(content), content)


def _check_unicode(value: str, param: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param}: character {error.start} is half of a surrogate pair, which is no valid "
            "Unicode: the text was cut or decoded wrongly before it was sent",
            param,
        ) from None
