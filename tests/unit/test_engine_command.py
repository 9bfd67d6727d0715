from pathlib import Path

from infinity_worker.engine import engine_command, engine_environment
from infinity_worker.settings import Settings


def settings(**variables: str) -> Settings:
    return Settings.from_env({"MODEL_NAMES": "org/one;org/two", "ENGINE_BIN": "/bin/e"} | variables)


def test_the_command_line_says_everything_that_matters() -> None:
    command = engine_command(
        settings(
            SERVED_MODEL_NAMES="one;two",
            BATCH_SIZES="8;16",
            DTYPES="auto;float16",
            MODEL_REVISIONS="main;v2",
        ),
        7997,
    )
    assert command == [
        *("/bin/e", "v2"),
        *("--model-id", "org/one", "--served-model-name", "one"),
        *("--revision", ""),
        *("--batch-size", "8", "--dtype", "auto"),
        *("--model-id", "org/two", "--served-model-name", "two"),
        *("--revision", "v2"),
        *("--batch-size", "16", "--dtype", "float16"),
        *("--engine", "torch", "--device", "auto"),
        *("--host", "127.0.0.1", "--port", "7997", "--url-prefix", ""),
        *("--log-level", "warning", "--lengths-via-tokenize", "--no-model-warmup"),
        "--trust-remote-code",
    ]


def test_remote_code_can_be_forbidden() -> None:
    assert engine_command(settings(TRUST_REMOTE_CODE="false"), 1)[-1] == "--no-trust-remote-code"


def test_the_engine_gets_no_secret_that_it_does_not_need() -> None:
    environment = engine_environment(
        settings(RUNPOD_AI_API_KEY="secret", OPENAI_API_KEY="secret", HF_HOME="needed", PATH="/bin")
    )
    assert "secret" not in environment.values()
    assert environment["HF_HOME"] == "needed"
    assert environment["PATH"] == "/bin"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["INFINITY_QUEUE_SIZE"] == "48000"


def test_the_engine_may_keep_its_bytecode() -> None:
    environment = engine_environment(settings(PYTHONDONTWRITEBYTECODE="1"))
    assert "PYTHONDONTWRITEBYTECODE" not in environment


def test_the_hub_is_left_alone_when_all_models_are_folders(tmp_path: Path) -> None:
    here = str(tmp_path)
    assert engine_environment(settings(MODEL_NAMES=here))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in engine_environment(settings(MODEL_NAMES=f"{here};org/one"))
