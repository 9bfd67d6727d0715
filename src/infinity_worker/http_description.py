"""What the HTTP server says of itself: its OpenAPI document, and the page that shows it.

The options of a request come from the models that read them; the rest is written down here, and a
test holds it against the running server.
"""

from importlib.metadata import version
from typing import Any, TypeAlias

from pydantic import BaseModel

from infinity_worker.options import Options
from infinity_worker.scoring_schema import ScoringOptions

Json: TypeAlias = dict[str, Any]

DESCRIPTION_PATH = "/openapi.json"

_NULL: Json = {"type": "null"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_NUMBER: Json = {"type": "number"}
_REFUSALS = {
    400: "A field or an item is missing or malformed; `param` names it.",
    401: "The API key is missing or wrong.",
    404: "The model is not served; the message lists those that are.",
    408: "The body did not come in time.",
    413: "Too many items, one that is too large, or too large a body or result.",
    415: "The body is compressed in a way that is not read.",
    429: "The queue of the engine, or of the worker, stayed full: try again later.",
    500: "Internal error: see the worker's log.",
    502: "The engine failed, or answered nonsense.",
    503: "The engine is not there: it loads, or is started again.",
    504: "It was not done in its time.",
}
_OF_ENGINE = (429, 500, 502, 503, 504)
_OF_BODY = (400, 404, 408, 413, 415)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list_of(schema: Json, least: int = 0) -> Json:
    return {"type": "array", "items": schema, "minItems": least}


def _object(*required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _options(model: type[BaseModel]) -> dict[str, Json]:
    """The schemas of a model's fields; null stands for a field that is left out."""
    options = {}
    for name, field in model.model_json_schema()["properties"].items():
        bare = {key: value for key, value in field.items() if key not in ("title", "default")}
        choices = bare.get("anyOf", [bare])
        options[name] = {"anyOf": [*choices, *([] if _NULL in choices else [_NULL])]}
    return options


# The fields that the items may come in: one of them.
_ITEM_FIELDS = {
    "input": _ref("Items"),
    "inputs": _ref("Items"),
    "texts": _ref("Items"),
    "images": _ref("Items"),
    "messages": _list_of({"type": "object"}, 1) | {"maxItems": 1},
}
_USAGE = _object("prompt_tokens", "total_tokens", prompt_tokens=_COUNT, total_tokens=_COUNT)
_ERROR = _object(
    *("message", "type", "param", "code"),
    message=_TEXT,
    type=_TEXT,
    param={"type": ["string", "null"]},
    code={"type": "integer"},
)
_EMBEDDING = {"description": "Numbers, base64, by type, or null where the item failed."} | {
    "anyOf": [_list_of(_NUMBER), _TEXT, {"type": "object"}, _NULL]
}


def _schemas() -> Json:
    items = {"oneOf": [{"required": [name]} for name in _ITEM_FIELDS]}
    return {
        "Error": _object("error", error=_ERROR),
        "Items": {
            "description": "One item or a list: strings, or objects such as {text} or {image}.",
            "anyOf": [
                _TEXT,
                {"type": "object"},
                _list_of({"anyOf": [_TEXT, {"type": "object"}]}, 1),
            ],
        },
        "EmbeddingRequest": _object(**_ITEM_FIELDS, **_options(Options)) | items,
        "EmbeddingResponse": _object(
            *("object", "data", "model", "usage"),
            object={"const": "list"},
            data=_list_of(
                _object(
                    *("object", "index", "embedding"),
                    object={"const": "embedding"},
                    index=_COUNT,
                    embedding=_EMBEDDING,
                    error=_ERROR,
                )
            ),
            model=_TEXT,
            usage=_USAGE,
        ),
        "RerankRequest": _object(
            *("query", "documents"),
            query=_TEXT,
            documents=_list_of(_TEXT, 1),
            **_options(ScoringOptions),
        ),
        "RerankResponse": _object(
            *("object", "results", "model", "usage"),
            object={"const": "rerank"},
            results=_list_of(
                _object("index", "relevance_score", index=_COUNT, relevance_score=_NUMBER)
            ),
            model=_TEXT,
            usage=_USAGE,
        ),
        "ClassifyRequest": _object(
            *("input",),
            input={"anyOf": [_TEXT, _list_of(_TEXT, 1)]},
            **{name: _options(ScoringOptions)[name] for name in ("model", "raw_scores")},
        ),
        "ClassifyResponse": _object(
            *("object", "data", "model", "usage"),
            object={"const": "classify"},
            data=_list_of(_list_of(_object("label", "score", label=_TEXT, score=_NUMBER))),
            model=_TEXT,
            usage=_USAGE,
        ),
        "Model": _object(
            *("id", "object", "created", "owned_by", "capabilities"),
            id=_TEXT,
            object={"const": "model"},
            created=_COUNT,
            owned_by=_TEXT,
            capabilities=_list_of(_TEXT),
            aliases=_list_of(_TEXT),
            dimensions={"type": ["integer", "null"]},
            max_tokens={"type": ["integer", "null"]},
            max_characters=_COUNT,
            prompts=_list_of(_TEXT),
        ),
        "Models": _object("data", object={"const": "list"}, data=_list_of(_ref("Model"))),
        "Health": _object(
            *("state", "models", "uptime_s", "engine_restarts", "waiting_items"),
            state={"enum": ["loading", "ready", "down", "draining"]},
            models=_list_of(_TEXT),
            uptime_s=_NUMBER,
            engine_restarts=_COUNT,
            waiting_items=_COUNT,
            requests_in_progress=_COUNT,
        ),
    }


def _json(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _operation(summary: str, answer: Json, *refusals: int) -> Json:
    refused = {str(code): _json(_REFUSALS[code], _ref("Error")) for code in refusals}
    return {"summary": summary, "responses": {"200": answer} | refused}


def _posted(summary: str, name: str) -> Json:
    body = {"application/json": {"schema": _ref(f"{name}Request")}}
    answer = _json("The result.", _ref(f"{name}Response"))
    operation = _operation(summary, answer, *_OF_BODY, *_OF_ENGINE)
    return {"post": operation | {"requestBody": {"required": True, "content": body}}}


def _read(summary: str, answer: Json, *refusals: int) -> Json:
    return {"get": _operation(summary, answer, *refusals)}


def _paths() -> dict[str, Json]:
    name = {"name": "model", "in": "path", "required": True, "schema": _TEXT | {"minLength": 1}}
    plain = {"description": "Prometheus's text format.", "content": {"text/plain": {}}}
    ping = _read("Whether it embeds, for load balancers", {"description": "It embeds."})
    ping["get"]["responses"] |= {
        "204": {"description": "The engine loads."},
        "503": {"description": "The engine is down, or the worker is about to end."},
    }
    return {
        "/v1/embeddings": _posted("Embed texts, images or recordings", "Embedding"),
        "/v1/rerank": _posted("Rank documents by a query, the best first", "Rerank"),
        "/v1/classify": _posted("Score texts for a model's labels, the best first", "Classify"),
        "/v1/models": _read("The served models", _json("They.", _ref("Models")), *_OF_ENGINE),
        "/v1/models/{model}": _read("One of them", _json("It.", _ref("Model")), 404, *_OF_ENGINE)
        | {"parameters": [name]},
        "/health": _read("How it is, in detail", _json("So.", _ref("Health"))),
        "/metrics": _read("What it has counted", plain),
        "/ping": ping,
    }


def describe(*, has_keys: bool) -> Json:
    """The OpenAPI 3.1 document.

    Args:
        has_keys: whether callers need a key, for all but `/ping`.
    """
    paths = _paths()
    schemas: Json = {"schemas": _schemas()}
    if has_keys:
        schemas["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in paths.items():
            for method in methods.keys() & {"get", "post"} if path != "/ping" else ():
                operation = methods[method]
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = _json(_REFUSALS[401], _ref("Error"))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Infinity Worker",
            "version": version("infinity-worker"),
            "description": "Each path under `/v1` is also served without it.",
        },
        "paths": paths,
        "components": schemas,
    }


def page() -> bytes:
    """The page that shows the document; a browser fetches Swagger UI for it from the web."""
    # Only now: nobody else needs FastAPI here, and it takes a third of a second to import.
    from fastapi.openapi.docs import get_swagger_ui_html  # noqa: PLC0415

    shown = get_swagger_ui_html(openapi_url=DESCRIPTION_PATH.lstrip("/"), title="Infinity Worker")
    return bytes(shown.body)
