"""RunPod Hub's two files: their format, and that they agree with the settings and the handler.

The format is that of RunPod's publishing guide (docs.runpod.io/hub/publishing-guide).
"""

import ast
import re
from collections.abc import Mapping
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
TESTS = ROOT / ".runpod" / "tests.json"
# Settings that make no sense to choose on the Hub, and why.
LEFT_OUT: Mapping[str, str] = {
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
    "WORKER_MODE": "a listing is of one kind of endpoint, this one of queues",
    "HTTP_HOST": "for WORKER_MODE=http",
    "PORT": "for WORKER_MODE=http",
    "PORT_HEALTH": "for WORKER_MODE=http",
    "API_KEY": "for WORKER_MODE=http",
    "DRAIN_DELAY": "for WORKER_MODE=http",
    "REQUEST_LIMIT_BYTES": "for WORKER_MODE=http; a queue has the platform's limits",
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
    runs_on: Literal["GPU"]
    container_disk_in_gb: int = Field(gt=0)
    gpu_count: int = Field(gt=0)
    gpu_ids: str
    allowed_cuda_versions: list[Cuda]
    presets: list[Preset]
    env: list[Variable]


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


HUB_FILE = Hub.model_validate_json(HUB.read_text())
TESTS_FILE = HubTests.model_validate_json(TESTS.read_text())
INPUTS = {variable.key: variable.input for variable in HUB_FILE.config.env}


def variables_of_settings() -> set[str]:
    """The names that settings.py reads: the first argument of each reading call."""
    tree = ast.parse((ROOT / "src/infinity_worker/settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    names = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    return {name for name in names if isinstance(name, str) and re.fullmatch("[A-Z_]{4,}", name)}


def as_variable(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_setting_is_an_input_or_left_out_for_a_reason() -> None:
    assert len(INPUTS) == len(HUB_FILE.config.env)
    assert not INPUTS.keys() & LEFT_OUT.keys()
    assert INPUTS.keys() | LEFT_OUT.keys() == variables_of_settings()


def test_the_defaults_are_those_of_the_settings() -> None:
    given = {
        key: as_variable(each.default) for key, each in INPUTS.items() if each.default is not None
    }
    models = {"MODEL_NAMES": given["MODEL_NAMES"]}
    chosen, plain = Settings.from_env(given), Settings.from_env(models)
    for name in Settings.__dataclass_fields__.keys() - {"environment"}:
        assert getattr(chosen, name) == getattr(plain, name), name


@pytest.mark.parametrize("key", [key for key, each in INPUTS.items() if each.type == "number"])
def test_a_number_may_be_all_that_its_input_allows(key: str) -> None:
    for value in (INPUTS[key].min, INPUTS[key].max):
        assert value is not None
        Settings.from_env({key: f"{value:.0f}"})


@pytest.mark.parametrize("key", [key for key, each in INPUTS.items() if each.options])
def test_every_option_is_accepted(key: str) -> None:
    for option in INPUTS[key].options or []:
        Settings.from_env({key: option.value})


@pytest.mark.parametrize("preset", HUB_FILE.config.presets, ids=lambda preset: preset.name)
def test_a_preset_sets_inputs_to_what_the_settings_accept(preset: Preset) -> None:
    assert preset.defaults.keys() <= INPUTS.keys()
    settings = Settings.from_env({key: as_variable(each) for key, each in preset.defaults.items()})
    assert settings.models


def test_both_files_ask_for_the_cuda_that_the_engines_lock_brings() -> None:
    lock = (ROOT / "engine" / "uv.lock").read_text()
    found = re.search(r'name = "nvidia-cuda-runtime"\nversion = "(\d+)\.(\d+)', lock)
    assert found
    oldest = tuple(map(int, found.groups()))
    assert HUB_FILE.config.allowed_cuda_versions == TESTS_FILE.config.allowed_cuda_versions
    for version in HUB_FILE.config.allowed_cuda_versions:
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
