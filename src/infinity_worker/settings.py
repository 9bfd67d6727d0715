"""Every setting, read once and checked.

This is the only module that reads the process environment. Everything else is handed a `Settings`.

The names `MODEL_NAMES`, `BATCH_SIZES`, `DTYPES`, `BACKEND`, `INFINITY_QUEUE_SIZE` and
`RUNPOD_MAX_CONCURRENCY` mean what they mean for RunPod's official Infinity worker.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from infinity_worker.variables import Reader, SettingsError, bounded, one_of

BACKENDS = ("torch", "optimum", "ctranslate2", "neuron", "debugengine")
DTYPES = ("auto", "float32", "float16", "bfloat16", "int8", "fp8")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_SECRET = ("_TOKEN", "_KEY", "_SECRET", "_PASSWORD")
# A shorter value is no secret, and its letters are in every other word.
_SECRET_CHARS = 6
MODES = ("queue", "http")


class _Limits(NamedTuple):
    """What depends on the mode: the platform has other limits for each kind of endpoint."""

    job_s: float
    result_bytes: int


# A queue's jobs end after 600 s, and there must be time to report; results have 20 MB. A
# load-balancing endpoint's requests end after 330 s, and responses have 30 MB.
_LIMITS = {"queue": _Limits(480.0, 19_000_000), "http": _Limits(300.0, 30_000_000)}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One model that the engine is asked to load.

    Attributes:
        source: Hugging Face id or a folder.
        name: what callers put into `model`.
        batch_size: the most items in one pass through the model.
        dtype: number format of the weights; `auto` leaves it to Infinity.
        revision: the hub's branch, tag or commit; `main` is no pin.
    """

    source: str
    name: str
    batch_size: int = 32
    dtype: str = "auto"
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Settings:
    """The worker's settings. Times are in seconds.

    Attributes:
        mode: `queue` takes jobs from RunPod, `http` answers HTTP requests.
        models: what the engine loads, in order; the first is the default model.
        aliases: served names by the other names that callers may use for them.
        prompts: what to put before texts, by served name and purpose.
        infinity_url: a running Infinity server to use instead of starting one.
        infinity_port: the port for the engine that is started; 0 lets the system choose.
        infinity_api_key: sent to the engine as a bearer token.
        infinity_queue_size: items that the engine queues before it answers 429.
        hf_token: the model hub's, for gated models.
        baked_models_dir: a hub cache that is part of the image.
        engine_bin: the `infinity_emb` program of the engine's own environment.
        engine_device: `auto`, `cpu`, `cuda` or `mps`.
        backend: Infinity's inference engine.
        trust_remote_code: whether code that comes with a model may run.
        engine_start_timeout_s: how long loading the models may take.
        engine_timeout_s: how long one engine request may take, beside what its size allows it.
        job_timeout_s: how long a job may take, waiting for the engine included.
        engine_memory_mb: resident megabytes beyond which the engine is started again; 0 for none.
        engine_max_restarts: how often the engine may be started again within the window.
        engine_restart_window_s: the window.
        max_waiting_items: items that the worker holds before further jobs wait outside.
        engine_requests: engine requests for one model that may be under way at a time.
        cache_mb: megabytes of text embeddings to remember; 0 remembers none.
        max_concurrency: jobs that the worker takes at a time.
        max_items: the most items in one request.
        image_max_bytes: the most bytes of one image.
        image_max_pixels: the most pixels of one image.
        image_fetch_timeout_s: how long getting one image from the web may take.
        image_fetches: images that are fetched at a time.
        image_allowed_hosts: `host` or `host:port` whose addresses need not be public.
        job_loop: `event` for the project's own loop, `stock` for the SDK's.
        http_host: the address on which the HTTP server listens.
        port: its port; 0 lets the system choose.
        health_port: a second port for the same server; None for none.
        api_keys: one of them must come with each HTTP request; none lets anybody in.
        request_limit_bytes: the most bytes of an HTTP request's body, inflated.
        drain_delay_s: how long an HTTP server that is told to end goes on taking requests.
        result_limit_bytes: the most bytes that the platform takes as a result.
        report_timeout_s: how long one try to report a result may take.
        shutdown_timeout_s: how long jobs may go on once the worker is told to end.
        log_level: one of `LOG_LEVELS`.
        edge_api_key: what clients of the local edge must send; None lets anybody in.
        on_platform: whether this runs on RunPod (logs are JSON there).
        environment: the variables all this was read from, for child processes.
    """

    mode: str = "queue"
    models: tuple[ModelSettings, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    infinity_url: str | None = None
    infinity_port: int = 7997
    infinity_api_key: str | None = field(default=None, repr=False)
    infinity_queue_size: int = 48_000
    hf_token: str | None = field(default=None, repr=False)
    baked_models_dir: Path = Path("/models")
    engine_bin: Path = Path()
    engine_device: str = "auto"
    backend: str = "torch"
    trust_remote_code: bool = True
    engine_start_timeout_s: float = 900.0
    engine_timeout_s: float = 60.0
    # The platform's own limit is 600: there must be time to report as well.
    job_timeout_s: float = 480.0
    engine_memory_mb: int = 0
    engine_max_restarts: int = 5
    engine_restart_window_s: float = 600.0
    max_waiting_items: int = 100_000
    # Measured with 32 callers on 2 cores: more only makes smaller requests of the same texts.
    engine_requests: int = 2
    cache_mb: int = 0
    # Modest: a worker must not hoard a queue that others could drain. Measured with 256 callers on
    # 2 cores, jobs/s: MiniLM 207 with 16 slots, 342 with 50, 337 with 100; a weightless engine
    # 1,238, 2,263 and 3,047. Raise it where the engine is much faster than that.
    max_concurrency: int = 50
    max_items: int = 10_000
    image_max_bytes: int = 20_000_000
    image_max_pixels: int = 50_000_000
    image_fetch_timeout_s: float = 10.0
    image_fetches: int = 16
    image_allowed_hosts: tuple[str, ...] = ()
    job_loop: str = "event"
    http_host: str = "127.0.0.1"
    port: int = 8080
    health_port: int | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    request_limit_bytes: int = 30_000_000
    drain_delay_s: float = 1.0
    result_limit_bytes: int = 19_000_000
    report_timeout_s: float = 20.0
    shutdown_timeout_s: float = 30.0
    log_level: str = "INFO"
    edge_api_key: str | None = field(default=None, repr=False)
    on_platform: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_process(cls, defaults: Mapping[str, str] | None = None) -> Self:
        """Read the process environment; `defaults` fill in for variables that are not set.

        Raises:
            SettingsError: a variable has a value that cannot be used.
        """
        return cls.from_env({**(defaults or {}), **os.environ})

    def without_secrets(self, text: str) -> str:
        """Blot out the values of this process's tokens, keys and passwords."""
        for name, value in self.environment.items():
            if name.endswith(_SECRET) and len(value) >= _SECRET_CHARS:
                text = text.replace(value, "***")
        return text

    @staticmethod
    def default_engine_bin() -> Path:
        """Where `make setup` puts the engine's program, seen from this file in the checkout."""
        return Path(__file__).resolve().parents[2] / "engine" / ".venv" / "bin" / "infinity_emb"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read settings from a mapping of variables; a blank value counts as not set.

        Raises:
            SettingsError: a variable has a value that cannot be used.
        """
        read = Reader(env)
        url = read.text("INFINITY_URL")
        if url is not None and not url.startswith(("http://", "https://")):
            raise SettingsError("INFINITY_URL must start with http:// or https://")
        mode = read.choice("WORKER_MODE", "queue", MODES)
        limits = _LIMITS[mode]
        on_platform = read.text("RUNPOD_ENDPOINT_ID") is not None
        # Either is set by the platform; a worker that listens on loopback there would be deaf.
        in_pod = on_platform or read.text("RUNPOD_POD_ID") is not None
        health_port = read.integer("PORT_HEALTH", 0, 0, 65_535)
        return cls(
            mode=mode,
            models=_models(read),
            aliases=_aliases(read),
            prompts=_prompts(read),
            infinity_url=url.rstrip("/") if url else None,
            infinity_port=read.integer("INFINITY_PORT", 7997, 0, 65_535),
            infinity_api_key=read.text("INFINITY_API_KEY"),
            infinity_queue_size=read.integer("INFINITY_QUEUE_SIZE", 48_000, 1, 10_000_000),
            hf_token=read.text("HF_TOKEN"),
            baked_models_dir=Path(read.text("BAKED_MODELS_DIR") or "/models"),
            engine_bin=Path(read.text("ENGINE_BIN") or cls.default_engine_bin()),
            engine_device=read.choice("ENGINE_DEVICE", "auto", ("auto", "cpu", "cuda", "mps")),
            backend=read.choice("BACKEND", "torch", BACKENDS),
            trust_remote_code=read.boolean("TRUST_REMOTE_CODE", default=True),
            engine_start_timeout_s=read.number("ENGINE_START_TIMEOUT", 900.0, 1.0, 86_400.0),
            engine_timeout_s=read.number("ENGINE_TIMEOUT", 60.0, 0.1, 3_600.0),
            job_timeout_s=read.number("JOB_TIMEOUT", limits.job_s, 0.1, 86_400.0),
            engine_memory_mb=read.integer("ENGINE_MEMORY_MB", 0, 0, 100_000_000),
            engine_max_restarts=read.integer("ENGINE_MAX_RESTARTS", 5, 0, 1_000),
            engine_restart_window_s=read.number("ENGINE_RESTART_WINDOW", 600.0, 1.0, 86_400.0),
            max_waiting_items=read.integer("MAX_WAITING_ITEMS", 100_000, 1, 100_000_000),
            engine_requests=read.integer("ENGINE_REQUESTS", 2, 1, 1_000),
            cache_mb=read.integer("CACHE_MB", 0, 0, 1_000_000),
            max_concurrency=read.integer("RUNPOD_MAX_CONCURRENCY", 50, 1, 10_000),
            max_items=read.integer("MAX_ITEMS", 10_000, 1, 1_000_000),
            image_max_bytes=read.integer("IMAGE_MAX_BYTES", 20_000_000, 1_000, 100_000_000),
            image_max_pixels=read.integer("IMAGE_MAX_PIXELS", 50_000_000, 100, 1_000_000_000),
            image_fetch_timeout_s=read.number("IMAGE_FETCH_TIMEOUT", 10.0, 0.1, 600.0),
            image_fetches=read.integer("IMAGE_FETCHES", 16, 1, 1_000),
            image_allowed_hosts=tuple(read.values("IMAGE_ALLOWED_HOSTS")),
            job_loop=read.choice("WORKER_JOB_LOOP", "event", ("event", "stock")),
            http_host=read.text("HTTP_HOST") or ("0.0.0.0" if in_pod else "127.0.0.1"),  # noqa: S104  # a container's own
            port=read.integer("PORT", 80 if in_pod else 8080, 0, 65_535),
            health_port=health_port or None,
            api_keys=tuple(read.values("API_KEY")),
            request_limit_bytes=read.integer(
                "REQUEST_LIMIT_BYTES", 30_000_000, 1_000, 1_000_000_000
            ),
            drain_delay_s=read.number("DRAIN_DELAY", 1.0, 0.0, 3_600.0),
            result_limit_bytes=read.integer(
                "RESULT_LIMIT_BYTES", limits.result_bytes, 1_000, 1_000_000_000
            ),
            report_timeout_s=read.number("REPORT_TIMEOUT", 20.0, 0.1, 600.0),
            shutdown_timeout_s=read.number("SHUTDOWN_TIMEOUT", 30.0, 0.0, 3_600.0),
            log_level=read.choice("LOG_LEVEL", "INFO", LOG_LEVELS),
            edge_api_key=read.text("EDGE_API_KEY"),
            on_platform=on_platform,
            environment=dict(env),
        )


def api_key_from_process() -> str | None:
    """The key that `infinity-worker request` calls an endpoint with, if the environment has one."""
    read = Reader(os.environ)
    return read.text("RUNPOD_API_KEY") or read.text("EDGE_API_KEY")


def _models(read: Reader) -> tuple[ModelSettings, ...]:
    sources = read.values("MODEL_NAMES")

    def per_model(name: str, defaults: list[str]) -> list[str]:
        values = read.values(name) or defaults
        if len(values) != len(sources):
            raise SettingsError(
                f"{name} has {len(values)} values for {len(sources)} models in MODEL_NAMES: "
                "give one for each, separated by semicolons"
            )
        return values

    names = per_model("SERVED_MODEL_NAMES", sources)
    if len(set(names)) != len(names):
        raise SettingsError(
            "two models have the same name: set SERVED_MODEL_NAMES to tell them apart"
        )
    sizes = per_model("BATCH_SIZES", ["32"] * len(sources))
    dtypes = per_model("DTYPES", ["auto"] * len(sources))
    revisions = per_model("MODEL_REVISIONS", ["main"] * len(sources))
    return tuple(
        ModelSettings(
            source,
            name,
            bounded("BATCH_SIZES", size, int, 1, 100_000),
            one_of("DTYPES", dtype, DTYPES),
            revision,
        )
        for source, name, size, dtype, revision in zip(
            sources, names, sizes, dtypes, revisions, strict=True
        )
    )


def _aliases(read: Reader) -> dict[str, str]:
    aliases: dict[str, str] = {}
    for entry in read.values("MODEL_ALIASES"):
        alias, equals, name = (part.strip() for part in entry.partition("="))
        if not (alias and equals and name):
            raise SettingsError("MODEL_ALIASES must look like alias=served-name;alias=served-name")
        aliases[alias] = name
    return aliases


def _prompts(read: Reader) -> dict[str, dict[str, str]]:
    problem = SettingsError(
        'MODEL_PROMPTS must be JSON like {"served-name": {"query": "query: ", "document": ""}}'
    )
    try:
        prompts = json.loads(read.text("MODEL_PROMPTS") or "{}")
    except ValueError:
        raise problem from None
    if not isinstance(prompts, dict) or not all(map(_is_texts, prompts.values())):
        raise problem
    return prompts


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
