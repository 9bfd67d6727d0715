"""Accepted shapes of rerank and classify requests, normalised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from infinity_worker.errors import InvalidRequest, RequestTooLarge
from infinity_worker.infinity_client import MAX_TEXT_CHARS
from infinity_worker.items import MalformedItem, kind, read_item
from infinity_worker.schema import EmbeddingRequest, check_unicode

# What clients call the documents: Cohere and Jina; RunPod's official worker; TEI.
_DOCUMENTS = ("documents", "docs", "texts")


class ScoringOptions(BaseModel):
    """The other fields. Unknown ones are ignored."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, protected_namespaces=(), hide_input_in_errors=True
    )

    model: str | None = None
    raw_scores: bool = False
    top_n: PositiveInt | None = None
    top_k: PositiveInt | None = None
    return_documents: bool = False
    return_docs: bool = False
    return_text: bool = False

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


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """What every rerank request comes down to.

    Attributes:
        query: what the documents are compared with.
        documents: their texts, in the caller's order.
        sent: the same as they were sent, to be sent back.
        field: the field that they came in, for error messages.
        model: a served name, or None for the first that ranks.
        top_n: how many results to return, the best; None for all.
        return_documents: whether the results hold the documents.
        raw_scores: whether scores are the model's own numbers instead of 0 to 1.
    """

    query: str
    documents: Sequence[str]
    sent: Sequence[object]
    field: str
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False

    @classmethod
    def read(cls, body: object, max_items: int) -> Self:
        """Read a request's body: `query`, and `documents`, `docs` or `texts`.

        Raises:
            InvalidRequest: a field is missing or malformed; names the field.
            RequestTooLarge: there are more than `max_items` documents, or one is too long.
        """
        given = _given(body)
        options = ScoringOptions.read(given)
        query = _text(given.get("query", {}), "query")
        present = [name for name in _DOCUMENTS if name in given]
        if len(present) != 1:
            raise InvalidRequest("documents: send one list of texts", "documents")
        name = present[0]
        sent = given[name]
        if not isinstance(sent, list) or not sent:
            raise InvalidRequest(f"{name}: must be a list of at least one text", name)
        if len(sent) > max_items:
            raise RequestTooLarge(
                f"{name}: {len(sent):,} documents, at most {max_items:,} are accepted: send "
                "several requests",
                name,
            )
        return cls(
            query=query,
            documents=[_text(value, f"{name}[{at}]") for at, value in enumerate(sent)],
            sent=sent,
            field=name,
            model=options.model,
            top_n=options.top_n or options.top_k,
            return_documents=options.return_documents or options.return_docs or options.return_text,
            raw_scores=options.raw_scores,
        )


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """What every classify request comes down to.

    Attributes:
        texts: in the caller's order.
        field: the field that they came in, for error messages.
        model: a served name, or None for the first that classifies.
        raw_scores: whether scores are the model's own numbers instead of 0 to 1.
    """

    texts: Sequence[str]
    field: str
    model: str | None = None
    raw_scores: bool = False

    @classmethod
    def read(cls, body: object, max_items: int) -> Self:
        """Read a request's body: texts in any shape in which texts to embed may come.

        Raises:
            InvalidRequest: a field is missing or malformed, or an item is no text.
            RequestTooLarge: there are more than `max_items` texts, or one is too long.
        """
        request = EmbeddingRequest.from_openai(body)
        if request.count > max_items:
            raise RequestTooLarge(
                f"{request.input_field}: {request.count:,} texts, at most {max_items:,} are "
                "accepted: send several requests",
                request.input_field,
            )
        for at, item in zip(request.positions, request.items, strict=True):
            if item.modality != "text":
                param = request.param(at)
                raise InvalidRequest(f"{param}: only texts are classified", param)
            _check_length(item.content, request.param(at))
        return cls(
            texts=[item.content for item in request.items],
            field=request.input_field,
            model=request.model,
            raw_scores=ScoringOptions.read(_given(body)).raw_scores,
        )


def _given(body: object) -> Mapping[str, object]:
    if not isinstance(body, dict):
        raise InvalidRequest(f"the request must be a JSON object, not {kind(body)}", "input")
    # Clients send null for options that they leave to the server.
    return {name: value for name, value in body.items() if value is not None}


def _text(value: object, param: str) -> str:
    try:
        modality, text = read_item(value)
    except MalformedItem as error:
        raise InvalidRequest(f"{param}: {error}", param) from None
    if modality not in (None, "text"):
        raise InvalidRequest(f"{param}: only texts are ranked", param)
    check_unicode(text, param)
    _check_length(text, param)
    return text


def _check_length(text: str, param: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise RequestTooLarge(
            f"{param}: {len(text):,} characters, at most {MAX_TEXT_CHARS:,} are accepted: split "
            "the text",
            param,
        )
