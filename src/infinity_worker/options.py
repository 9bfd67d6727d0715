"""The fields of an embedding request beside its items, in the words of many clients."""

from collections.abc import Mapping
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from infinity_worker.errors import InvalidRequest
from infinity_worker.utils import Modality

EncodingFormat: TypeAlias = Literal["float", "base64"]
EmbeddingType: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary"]
OnError: TypeAlias = Literal["fail", "null"]

_TypeName: TypeAlias = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]


class Options(BaseModel):
    """The fields as they are sent. Unknown ones are ignored, as OpenAI's clients expect."""

    # pydantic's own `protected_namespaces` would warn about a field called `model`.
    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, protected_namespaces=(), hide_input_in_errors=True
    )

    model: str | None = None
    modality: Modality | None = None
    on_error: OnError = "fail"
    encoding_format: EncodingFormat = "float"
    # Numbers of an embedding: OpenAI and Jina; Cohere and Voyage.
    dimensions: PositiveInt | None = None
    output_dimension: PositiveInt | None = None
    # Their type: Cohere; Jina; Voyage.
    embedding_types: list[_TypeName] | None = None
    embedding_type: _TypeName | list[_TypeName] | None = None
    output_dtype: _TypeName | None = None
    # What is put before each text: itself, or its name: Cohere and Voyage; Jina;
    # sentence-transformers.
    prompt: str | None = None
    input_type: str | None = None
    task: str | None = None
    prompt_name: str | None = None
    # Whether long texts are cut: TEI and Voyage; Cohere.
    truncate: bool | str = True
    truncation: bool = True

    @classmethod
    def read(cls, given: Mapping[str, object]) -> Self:
        """Read them from a request's body, nulls left out.

        Raises:
            InvalidRequest: one is malformed; names the field.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0])
            raise InvalidRequest(f"{name}: {first['msg']}", name) from None

    @property
    def numbers(self) -> int | None:
        """How many numbers of each embedding to keep."""
        return self.dimensions or self.output_dimension

    @property
    def types(self) -> tuple[_TypeName, ...]:
        """What the numbers are to be, each type once."""
        named = self.embedding_types or self.embedding_type or self.output_dtype or "float"
        return (named,) if isinstance(named, str) else tuple(dict.fromkeys(named))

    @property
    def purpose(self) -> tuple[str, str] | None:
        """The field that says what the texts are for, and what it says."""
        for name in ("prompt_name", "input_type", "task"):
            if (value := getattr(self, name)) is not None:
                return name, value
        return None

    def cuts(self) -> bool:
        """Whether texts that are too long for the model are cut at their end, as models do.

        Raises:
            InvalidRequest: they are to be cut at their start, or the value is none that is known.
        """
        if isinstance(self.truncate, bool):
            return self.truncate and self.truncation
        match self.truncate.upper():
            case "END":
                return self.truncation
            case "NONE":
                return False
            case "START":
                raise InvalidRequest(
                    "truncate: the model cuts texts at their end: send END, NONE, true or false, "
                    "or cut them at their start before sending",
                    "truncate",
                )
            case _:
                raise InvalidRequest("truncate: must be END, NONE, true or false", "truncate")
