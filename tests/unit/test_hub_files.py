"""RunPod Hub's files: their format, and that they agree with the settings and the handler.

The format is that of RunPod's publishing guide (docs.runpod.io/hub/publishing-guide). A repository
has one listing, of one kind of endpoint: `hub.json` is a queue's, and the file that may take its
place is a load balancer's.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.alias_generators import to_camel

from fakes.fake_engine import FakeEngine
from infinity_worker.handler import async_handler
from infinity_worker.results import JobResult
from infinity_worker.settings import Settings
from infinity_worker.worker import Worker
from processes import ROOT

HUB = ROOT / ".runpod" / "hub.json"
BALANCED = ROOT / ".runpod" / "load-balancing" / "hub.json"
TESTS = ROOT / ".runpod" / "tests.json"
# Settings that make no sense to choose on the Hub, and why: in both listings, and in one of them.
IN_BOTH: Mapping[str, str] = {
    "INFINITY_URL": "the image brings its engine",
    "INFINITY_API_KEY": "for INFINITY_URL",
    "INFINITY_PORT": "nothing else listens in the container",
    "ENGINE_BIN": "the image's own",
    "ENGINE_DEVICE": "auto finds the GPU",
    "BAKED_MODELS_DIR": "the image's own",
    "RESULT_LIMIT_BYTES": "the platform's limit",
    "REPORT_TIMEOUT": "the platform's",
    "WORKER_JOB_LOOP": "for comparison; the SDK's loop is slower",
    "RUNPOD_ENDPOINT_ID": "set by the platform",
    "RUNPOD_API_KEY": "for infinity-worker request",
    "EDGE_API_KEY": "for the local edge",
    "RUNPOD_POD_ID": "set by the platform",
    "HTTP_HOST": "the platform must reach the worker",
    "PORT": "set by the platform, which exposes the port that it sets",
    "PORT_HEALTH": "as PORT",
    "REQUEST_LIMIT_BYTES": "the platform's limit",
}
LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    "queue": {
        **IN_BOTH,
        "WORKER_MODE": "a listing is of one kind of endpoint, this one of queues",
        "API_KEY": "for WORKER_MODE=http",
        "DRAIN_DELAY": "for WORKER_MODE=http",
    },
    "http": {
        **IN_BOTH,
        "WORKER_MODE": "a listing is of one kind of endpoint: given, not asked for",
        "RUNPOD_MAX_CONCURRENCY": "for WORKER_MODE=queue",
    },
}
# Which models of the tests stand for which of the fake engine's.
FAKES = {"text": "fake-text", "clip": "fake-clip"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Option(Strict):
    label: str
    value: str


class Input(Strict):
    name: str = Field(min_length=1, max_length=40)
    type: Literal["string", "number", "boolean", "huggingface"]
    description: str = Field(min_length=10)
    default: str | int | float | bool | None = None
    options: list[Option] | None = None
    min: float | None = None
    max: float | None = None
    required: bool = False
    advanced: bool = False
    true_value: str | None = None
    false_value: str | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "Input":
        kinds = {"number": (int, float), "boolean": (bool,)}.get(self.type, (str,))
        assert self.default is None or isinstance(self.default, kinds)
        assert (self.min is None and self.max is None) or self.type == "number"
        assert self.options is None or self.type == "string"
        assert self.true_value is None or self.type == "boolean"
        return self


class Variable(Strict):
    key: str = Field(pattern=r"^[A-Z][A-Z_]*$")
    input: Input


class Static(Strict):
    key: str = Field(pattern=r"^[A-Z][A-Z_]*$")
    value: str


class Preset(Strict):
    name: str
    defaults: dict[str, str | int | float | bool]


Cuda = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


class HubConfig(Strict):
    endpoint_type: Literal["LB"] | None = None
    runs_on: Literal["GPU"]
    container_disk_in_gb: int = Field(gt=0)
    gpu_count: int = Field(gt=0)
    gpu_ids: str
    allowed_cuda_versions: list[Cuda]
    presets: list[Preset]
    env: list[Variable | Static]


class Hub(Strict):
    title: str
    description: str
    type: Literal["serverless"]
    category: Literal["audio", "embedding", "language", "video", "image"]
    icon_url: str | None = None
    config: HubConfig


class Case(Strict):
    name: str
    input: dict[str, JsonValue]
    timeout: int = Field(ge=1_000)


class Machine(Strict):
    gpu_type_id: str
    gpu_count: int = Field(gt=0)
    allowed_cuda_versions: list[Cuda]
    env: list[Static]


class HubTests(Strict):
    tests: list[Case]
    config: Machine


class Listing:
    """What a file of the Hub offers."""

    def __init__(self, path: Path) -> None:
        self.config = Hub.model_validate_json(path.read_text()).config
        env = self.config.env
        self.inputs = {each.key: each.input for each in env if isinstance(each, Variable)}
        self.given = {each.key: each.value for each in env if isinstance(each, Static)}


LISTINGS = {"queue": Listing(HUB), "http": Listing(BALANCED)}
TESTS_FILE = HubTests.model_validate_json(TESTS.read_text())
EACH_LISTING = pytest.mark.parametrize("mode", LISTINGS)


def each_input(has: Callable[[Input], bool]) -> pytest.MarkDecorator:
    rows = [
        (mode, key) for mode in LISTINGS for key, each in LISTINGS[mode].inputs.items() if has(each)
    ]
    return pytest.mark.parametrize(("mode", "key"), rows)


def variables_of_settings() -> set[str]:
    """The names that settings.py reads: the first argument of each reading call."""
    tree = ast.parse((ROOT / "src/infinity_worker/settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    names = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    return {name for name in names if isinstance(name, str) and re.fullmatch("[A-Z_]{4,}", name)}


def as_variable(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@EACH_LISTING
def test_every_setting_is_an_input_or_left_out_for_a_reason(mode: str) -> None:
    listing, left_out = LISTINGS[mode], LEFT_OUT[mode]
    assert len(listing.inputs) + len(listing.given) == len(listing.config.env)
    assert not listing.inputs.keys() & left_out.keys()
    assert listing.inputs.keys() | left_out.keys() == variables_of_settings()


@EACH_LISTING
def test_a_listing_says_which_kind_of_endpoint_the_worker_is_for(mode: str) -> None:
    listing = LISTINGS[mode]
    assert Settings.from_env(listing.given).mode == mode
    assert listing.config.endpoint_type == {"queue": None, "http": "LB"}[mode]


def test_the_listings_differ_in_what_the_kinds_of_endpoint_need_and_in_nothing_else() -> None:
    queue, balanced = json.loads(HUB.read_text()), json.loads(BALANCED.read_text())
    queue["title"] += " (load balancing)"
    queue["config"]["endpointType"] = "LB"
    before = {each["key"]: each for each in queue["config"].pop("env")}
    after = {each["key"]: each for each in balanced["config"].pop("env")}
    assert queue == balanced
    assert before.keys() - after.keys() == {"RUNPOD_MAX_CONCURRENCY"}
    assert after.keys() - before.keys() == {"WORKER_MODE", "DRAIN_DELAY", "API_KEY"}
    before["JOB_TIMEOUT"]["input"]["default"] = 300
    for key in before.keys() & after.keys():
        assert before[key] == after[key]


@EACH_LISTING
def test_the_defaults_are_those_of_the_settings(mode: str) -> None:
    listing = LISTINGS[mode]
    given = listing.given | {
        key: as_variable(each.default)
        for key, each in listing.inputs.items()
        if each.default is not None
    }
    models = listing.given | {"MODEL_NAMES": given["MODEL_NAMES"]}
    chosen, plain = Settings.from_env(given), Settings.from_env(models)
    for name in Settings.__dataclass_fields__.keys() - {"environment"}:
        assert getattr(chosen, name) == getattr(plain, name), name


@each_input(lambda each: each.type == "number")
def test_a_number_may_be_all_that_its_input_allows(mode: str, key: str) -> None:
    limits = LISTINGS[mode].inputs[key]
    for value in (limits.min, limits.max):
        assert value is not None
        Settings.from_env({key: f"{value:.0f}"})


@each_input(lambda each: each.options is not None)
def test_every_option_is_accepted(mode: str, key: str) -> None:
    for option in LISTINGS[mode].inputs[key].options or []:
        Settings.from_env({key: option.value})


@pytest.mark.parametrize(
    ("mode", "preset"),
    [(mode, preset) for mode in LISTINGS for preset in LISTINGS[mode].config.presets],
    ids=lambda value: value.name if isinstance(value, Preset) else value,
)
def test_a_preset_sets_inputs_to_what_the_settings_accept(mode: str, preset: Preset) -> None:
    assert preset.defaults.keys() <= LISTINGS[mode].inputs.keys()
    settings = Settings.from_env({key: as_variable(each) for key, each in preset.defaults.items()})
    assert settings.models


@EACH_LISTING
def test_the_files_ask_for_the_cuda_that_the_engines_lock_brings(mode: str) -> None:
    lock = (ROOT / "engine" / "uv.lock").read_text()
    found = re.search(r'name = "nvidia-cuda-runtime"\nversion = "(\d+)\.(\d+)', lock)
    assert found
    oldest = tuple(map(int, found.groups()))
    versions = LISTINGS[mode].config.allowed_cuda_versions
    assert versions == TESTS_FILE.config.allowed_cuda_versions
    for version in versions:
        assert oldest <= tuple(map(int, version.split("."))) < (oldest[0] + 1, 0)


def test_the_tests_environment_is_accepted() -> None:
    settings = Settings.from_env({each.key: each.value for each in TESTS_FILE.config.env})
    assert {model.name for model in settings.models} == FAKES.keys()


@pytest.mark.parametrize("case", TESTS_FILE.tests, ids=lambda case: case.name)
async def test_every_hub_test_completes_here(
    case: Case, worker: Worker, engine: FakeEngine
) -> None:
    result = await async_handler({"id": "1", "input": for_fakes(case.input)}, worker)
    # An error on the OpenAI route completes its job: the Hub sees a 200.
    error = error_of(result)
    if case.name.startswith("error"):
        assert isinstance(result, list)
        assert error
        assert 400 <= error["code"] < 500
    else:
        assert error is None
        assert engine.requests or case.name == "models"


def test_the_handler_file_is_the_entry() -> None:
    source = (ROOT / ".runpod" / "handler.py").read_text()
    assert "from infinity_worker.__main__ import main" in source
    assert (ROOT / "README.md").exists()
    assert (ROOT / "Dockerfile").exists()


def for_fakes(job_input: Mapping[str, Any]) -> dict[str, Any]:
    """The same input with the fake engine's models in place of the tests'."""
    fake = dict(job_input)
    if "openai_input" in fake:
        fake["openai_input"] = for_fakes(fake["openai_input"])
    if "model" in fake:
        fake["model"] = FAKES.get(str(fake["model"]), "nobody")
    return fake


def error_of(result: JobResult) -> dict[str, Any] | None:
    answer: Any = result[0] if isinstance(result, list) else result
    error: dict[str, Any] | None = answer.get("error")
    return error
