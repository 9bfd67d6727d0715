from pathlib import Path

import pytest

from infinity_worker.settings import ModelSettings, Settings
from infinity_worker.variables import SettingsError


def test_nothing_set_gives_the_documented_defaults() -> None:
    settings = Settings.from_env({})
    assert settings.models == ()
    assert settings.infinity_url is None
    assert settings.infinity_port == 7997
    assert settings.infinity_queue_size == 48_000
    assert settings.backend == "torch"
    assert settings.engine_device == "auto"
    assert settings.trust_remote_code is True
    assert settings.on_platform is False


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ("queue", "127.0.0.1", 8080, None, 480.0, 19_000_000)),
        ({"WORKER_MODE": "HTTP"}, ("http", "127.0.0.1", 8080, None, 300.0, 30_000_000)),
        ({"RUNPOD_POD_ID": "p"}, ("queue", "0.0.0.0", 80, None, 480.0, 19_000_000)),  # noqa: S104  # compared, not listened on
        (
            {"RUNPOD_ENDPOINT_ID": "e", "WORKER_MODE": "http", "PORT_HEALTH": "81"},
            ("http", "0.0.0.0", 80, 81, 300.0, 30_000_000),  # noqa: S104  # likewise
        ),
        (
            {"WORKER_MODE": "http", "HTTP_HOST": "::", "PORT": "0", "JOB_TIMEOUT": "7"},
            ("http", "::", 0, None, 7.0, 30_000_000),
        ),
    ],
)
def test_what_depends_on_the_mode_and_the_place(
    variables: dict[str, str], expected: tuple[object, ...]
) -> None:
    settings = Settings.from_env(variables)
    assert expected == (
        settings.mode,
        settings.http_host,
        settings.port,
        settings.health_port,
        settings.job_timeout_s,
        settings.result_limit_bytes,
    )


def test_keys_are_read_and_never_shown() -> None:
    settings = Settings.from_env({"API_KEY": "old-secret; new-secret;"})
    assert settings.api_keys == ("old-secret", "new-secret")
    assert "secret" not in repr(settings)


def test_models_are_read_from_semicolon_lists() -> None:
    settings = Settings.from_env(
        {
            "MODEL_NAMES": "BAAI/bge-small-en-v1.5; /models/clip;",
            "SERVED_MODEL_NAMES": "bge;clip",
            "BATCH_SIZES": "64;8",
            "DTYPES": "float16;auto",
        }
    )
    assert settings.models == (
        ModelSettings("BAAI/bge-small-en-v1.5", "bge", 64, "float16"),
        ModelSettings("/models/clip", "clip", 8, "auto"),
    )


def test_a_model_is_served_under_its_own_name_by_default() -> None:
    (model,) = Settings.from_env({"MODEL_NAMES": "BAAI/bge-small-en-v1.5"}).models
    assert model == ModelSettings("BAAI/bge-small-en-v1.5", "BAAI/bge-small-en-v1.5", 32, "auto")


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("INFINITY_URL", "http://127.0.0.1:7997/", "infinity_url", "http://127.0.0.1:7997"),
        ("INFINITY_PORT", "0", "infinity_port", 0),
        ("MODEL_ALIASES", " a = b/c ; d=e;", "aliases", {"a": "b/c", "d": "e"}),
        ("MODEL_PROMPTS", '{"m": {"query": "q: "}}', "prompts", {"m": {"query": "q: "}}),
        ("INFINITY_QUEUE_SIZE", "100", "infinity_queue_size", 100),
        ("RUNPOD_MAX_CONCURRENCY", "300", "max_concurrency", 300),
        ("BACKEND", "OPTIMUM", "backend", "optimum"),
        ("TRUST_REMOTE_CODE", "false", "trust_remote_code", False),
        ("TRUST_REMOTE_CODE", "1", "trust_remote_code", True),
        ("ENGINE_BIN", "/opt/infinity_emb", "engine_bin", Path("/opt/infinity_emb")),
        ("ENGINE_TIMEOUT", "2.5", "engine_timeout_s", 2.5),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("RUNPOD_ENDPOINT_ID", "abc", "on_platform", True),
        ("INFINITY_PORT", "  ", "infinity_port", 7997),
    ],
)
def test_a_variable_is_read(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(Settings.from_env({name: value}), field) == expected


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"INFINITY_PORT": "seven"}, "INFINITY_PORT"),
        ({"MODEL_ALIASES": "a"}, "MODEL_ALIASES"),
        ({"MODEL_ALIASES": "=b"}, "MODEL_ALIASES"),
        ({"MODEL_PROMPTS": "query: "}, "MODEL_PROMPTS"),
        ({"MODEL_PROMPTS": '{"m": "query: "}'}, "MODEL_PROMPTS"),
        ({"MODEL_PROMPTS": '{"m": {"query": 7}}'}, "MODEL_PROMPTS"),
        ({"INFINITY_PORT": "70000"}, "INFINITY_PORT"),
        ({"RUNPOD_MAX_CONCURRENCY": "0"}, "RUNPOD_MAX_CONCURRENCY"),
        ({"ENGINE_TIMEOUT": "nan"}, "ENGINE_TIMEOUT"),
        ({"BACKEND": "tensorflow"}, "BACKEND"),
        ({"TRUST_REMOTE_CODE": "maybe"}, "TRUST_REMOTE_CODE"),
        ({"INFINITY_URL": "127.0.0.1:7997"}, "INFINITY_URL"),
        ({"MODEL_NAMES": "a;b", "BATCH_SIZES": "1"}, "BATCH_SIZES"),
        ({"MODEL_NAMES": "a", "BATCH_SIZES": "many"}, "BATCH_SIZES"),
        ({"MODEL_NAMES": "a", "DTYPES": "float4"}, "DTYPES"),
        ({"MODEL_NAMES": "a;a"}, "SERVED_MODEL_NAMES"),
        ({"BATCH_SIZES": "32"}, "BATCH_SIZES"),
        ({"MODEL_NAMES": "a;b", "MODEL_REVISIONS": "v1"}, "MODEL_REVISIONS"),
        ({"LOG_LEVEL": "chatty"}, "LOG_LEVEL"),
    ],
)
def test_an_unusable_value_is_an_error_that_names_the_variable(
    variables: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_env(variables)


def test_secrets_are_not_shown() -> None:
    shown = repr(Settings.from_env({"INFINITY_API_KEY": "s3cret", "HF_TOKEN": "t0ken"}))
    assert "s3cret" not in shown
    assert "t0ken" not in shown
