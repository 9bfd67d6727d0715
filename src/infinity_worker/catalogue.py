"""The served models as callers see them: their names and aliases, and what each can do."""

from collections.abc import Mapping
from types import MappingProxyType

from infinity_worker.errors import ModelNotFound
from infinity_worker.infinity_client import (
    MAX_TEXT_CHARS,
    InfinityClient,
    InfinityError,
    Model,
)
from infinity_worker.prompts import Prompts
from infinity_worker.tokens import TokenCounter
from infinity_worker.utils import JsonObject

_PROBE_TEXT = "one"
# A list of models is not worth waiting longer for what one of them does not say.
_PROBE_S = 5.0


class Catalogue:
    """Finds the model that a request means.

    Args:
        client: the engine's, which lists the models.
        aliases: served names by the other names that callers may use.
        prompts: what to put before texts, by served name.
        counters: know how many tokens of a text a model reads, by served name.
    """

    def __init__(
        self,
        client: InfinityClient,
        *,
        aliases: Mapping[str, str] = MappingProxyType({}),
        prompts: Mapping[str, Prompts] = MappingProxyType({}),
        counters: Mapping[str, TokenCounter] = MappingProxyType({}),
    ) -> None:
        self._client = client
        self._aliases = aliases
        self._prompts = prompts
        self._counters = counters
        self._dimensions: dict[str, int] = {}

    async def choose(self, name: str | None, capability: str | None = None) -> Model:
        """The model of that name or alias; the first that is capable where there is no name.

        Raises:
            ModelNotFound: no such model is served; the message lists those that are.
            InfinityError: the engine could not list its models.
        """
        models = await self._client.models()
        if name is None:
            capable = (model for model in models if not capability or model.can(capability))
            return next(capable, models[0])
        wanted = self._aliases.get(name, name)
        for model in models:
            if model.name == wanted:
                return model
        served = ", ".join([*(model.name for model in models), *self._aliases])
        raise ModelNotFound(f"model: this name is not served; served are: {served}", "model")

    def prompts(self, model: Model) -> Prompts:
        """What to put before a model's texts, by purpose."""
        return self._prompts.get(model.name, {})

    async def listing(self) -> JsonObject:
        """The models in OpenAI's shape, with what each can do and its limits."""
        models = await self._client.models()
        return {"object": "list", "data": [await self._entry(model) for model in models]}

    async def entry(self, name: str) -> JsonObject:
        """One model in the same shape.

        Raises:
            ModelNotFound: it is not served.
        """
        return await self._entry(await self.choose(name))

    async def _entry(self, model: Model) -> JsonObject:
        counter = self._counters.get(model.name)
        return {
            "id": model.name,
            "object": "model",
            "created": model.created,
            "owned_by": "infinity",
            "aliases": [alias for alias, name in self._aliases.items() if name == model.name],
            "capabilities": sorted(model.capabilities),
            "dimensions": await self._dimensions_of(model),
            "max_tokens": counter.max_tokens if counter else None,
            "max_characters": MAX_TEXT_CHARS,
            "prompts": sorted(self.prompts(model)),
        }

    async def _dimensions_of(self, model: Model) -> int | None:
        """How many numbers its embeddings have; None where it makes none, or cannot be asked."""
        if model.name not in self._dimensions and model.takes("text"):
            try:
                batch = await self._client.get_embeddings(
                    model.name, [_PROBE_TEXT], timeout_s=_PROBE_S
                )
            except InfinityError:
                return None
            self._dimensions[model.name] = batch.vectors.shape[1]
        return self._dimensions.get(model.name)
