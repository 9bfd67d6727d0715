"""What docs/deploy.md tells people to run is right: manifests, probes, metrics, the dashboard."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from http_worker import free_port, running_http_worker
from infinity_worker.logs import JobRecord
from infinity_worker.metrics import Gauges, Metrics
from infinity_worker.settings import Settings
from processes import BOUND_S, ROOT, TESTS, clean_environment, running

PAGE = (ROOT / "docs" / "deploy.md").read_text()
HTTP_PAGE = (ROOT / "docs" / "http.md").read_text()
DASHBOARD_FILE = ROOT / "docs" / "grafana" / "infinity-worker.json"
DASHBOARD: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text())
MANIFESTS_TEXT, MONITORING_TEXT = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
MANIFESTS: dict[str, Any] = {each["kind"]: each for each in yaml.safe_load_all(MANIFESTS_TEXT)}
SCRAPING, ADAPTER = yaml.safe_load_all(MONITORING_TEXT)
POD = MANIFESTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
ENV: dict[str, dict[str, Any]] = {each["name"]: each for each in CONTAINER["env"]}
SETTINGS = Settings.from_env({name: each.get("value", "") for name, each in ENV.items()})
METRIC = re.compile(r"\b(?:infinity_worker|process)_[a-z_]*[a-z]\b(?!-)")
# How long the engine has to end, and the last bytes of an answer to leave: see engine.py and
# http_server.py.
ENDING_S = 5 + 2


def exported() -> dict[str, set[str]]:
    """The series that a worker exports, each with its labels."""
    metrics = Metrics()
    record = JobRecord("1", "/v1/embeddings", "m", texts=1, tokens=1, cached=1)
    metrics.answered(record, 200, 0.01)
    metrics.engine_request(1, 0.01, [0.01])
    text = metrics.exposition(Gauges(engine_bytes=1)).decode()
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


EXPORTED = exported()
# What documents call a histogram is the name that its series begin with.
NAMES = EXPORTED.keys() | {
    name.removesuffix("_bucket") for name in EXPORTED if name.endswith("_bucket")
}


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize(
    ("text", "real"),
    [
        pytest.param("\n".join(expressions()), EXPORTED.keys(), id="dashboard"),
        pytest.param(json.dumps(DASHBOARD["templating"]), EXPORTED.keys(), id="its variables"),
        pytest.param(MANIFESTS_TEXT + MONITORING_TEXT, EXPORTED.keys(), id="manifests"),
        pytest.param(PAGE, NAMES, id="deploy.md"),
        pytest.param(HTTP_PAGE.partition("## Metrics")[2], NAMES, id="http.md"),
    ],
)
def test_every_metric_that_is_named_is_exported(text: str, real: set[str]) -> None:
    named = set(METRIC.findall(text))
    assert named
    assert named <= real


@pytest.mark.parametrize("text", [DASHBOARD_FILE.read_text(), HTTP_PAGE], ids=["dashboard", "docs"])
def test_every_metric_of_the_worker_is_shown(text: str) -> None:
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(text)}
    own = {name for name in NAMES if name.startswith("infinity_worker_")}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in own} <= shown


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_groups_by_labels_that_its_metrics_have(expression: str) -> None:
    labels = set.intersection(*(EXPORTED[name] for name in METRIC.findall(expression)))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        assert set(group.split(", ")) <= labels
    for matchers in re.findall(r"\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)=", matchers)) <= labels | {"job", "instance"}
    assert expression.count("(") == expression.count(")")


def test_the_dashboard_can_be_imported() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = DASHBOARD["templating"]["list"][0]
    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": f"${{{source['name']}}}"}


def test_every_variable_of_a_container_is_a_setting() -> None:
    source = (ROOT / "src/infinity_worker/settings.py").read_text()
    read = set(re.findall(r'(?:read\.\w+|per_model)\(\s*"([A-Z_]+)"', source))
    assert ENV.keys() <= read
    assert set(re.findall(r"-e ([A-Z_]+)", PAGE)) <= read
    assert SETTINGS.mode == "http"
    assert SETTINGS.http_host == "0.0.0.0"  # noqa: S104  # a container's own
    assert SETTINGS.models


def test_what_the_manifests_refer_to_is_in_them() -> None:
    secret = MANIFESTS["Secret"]
    for each in ENV.values():
        if reference := each.get("valueFrom", {}).get("secretKeyRef"):
            assert reference["name"] == secret["metadata"]["name"]
            assert reference["key"] in secret["stringData"] or reference["optional"]
    labels = POD["metadata"]["labels"]
    deployment, service = MANIFESTS["Deployment"]["spec"], MANIFESTS["Service"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels == service["selector"]
    scaled = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == MANIFESTS["Deployment"]["metadata"]["name"]
    (job,) = SCRAPING["scrape_configs"]
    assert [each.get("regex") for each in job["relabel_configs"][:2]] == [*labels.values(), "http"]


def test_the_ports_are_the_one_that_the_worker_listens_on() -> None:
    (port,) = CONTAINER["ports"]
    assert port == {"name": "http", "containerPort": SETTINGS.port}
    assert [each["targetPort"] for each in MANIFESTS["Service"]["spec"]["ports"]] == ["http"]
    assert CONTAINER["startupProbe"]["httpGet"] == {"path": "/ping", "port": "http"}
    for probe in ("readinessProbe", "livenessProbe"):
        assert f'("127.0.0.1", {SETTINGS.port})' in command_of(probe)[-1]
        assert "GET /ping " in command_of(probe)[-1]


def test_there_is_time_for_all_that_happens_at_the_start_and_at_the_end() -> None:
    readiness = CONTAINER["readinessProbe"]
    unseen_s = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert unseen_s == SETTINGS.drain_delay_s < SETTINGS.shutdown_timeout_s
    grace_s = POD["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > SETTINGS.drain_delay_s + SETTINGS.shutdown_timeout_s + ENDING_S
    deployment = MANIFESTS["Deployment"]["spec"]
    assert deployment["progressDeadlineSeconds"] > SETTINGS.engine_start_timeout_s
    stop = re.search(r"--stop-timeout (\d+)", PAGE)
    assert stop
    assert int(stop[1]) > Settings().shutdown_timeout_s + ENDING_S


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_serves() -> None:
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    (rule,) = ADAPTER["rules"]
    assert rule["seriesQuery"].startswith(metric["pods"]["metric"]["name"] + "{")
    assert re.fullmatch(rule["name"]["matches"], metric["pods"]["metric"]["name"])
    wanted = metric["pods"]["target"]["averageValue"]
    assert f"request count, {wanted};" in (ROOT / "docs" / "scaling.md").read_text()


def command_of(probe: str) -> list[str]:
    command: list[str] = CONTAINER[probe]["exec"]["command"]
    return command


def run_probe(probe: str, port: int) -> bool:
    """What Kubernetes makes of a probe's command, here against this port."""
    python, *options, program = command_of(probe)
    assert python == "python"
    program = program.replace(f", {SETTINGS.port})", f", {port})")
    seconds = CONTAINER[probe]["timeoutSeconds"]
    done = subprocess.run(
        [sys.executable, *options, program], stderr=subprocess.DEVNULL, check=False, timeout=seconds
    )
    return done.returncode == 0


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server whose `/ping` has this status; yields its port."""

    class Ping(BaseHTTPRequestHandler):
        timeout = BOUND_S

        def do_GET(self) -> None:
            self.send_response(status if self.path == "/ping" else 404)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Ping) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(BOUND_S)


@pytest.mark.parametrize(
    ("status", "ready", "alive"), [(200, True, True), (204, False, True), (503, False, True)]
)
def test_the_probes_tell_statuses_apart(status: int, ready: bool, alive: bool) -> None:  # noqa: FBT001  # columns of a table
    with answering(status) as port:
        assert run_probe("readinessProbe", port) is ready
        assert run_probe("livenessProbe", port) is alive


def test_where_nothing_listens_a_worker_is_neither_ready_nor_alive() -> None:
    port = free_port()
    assert not run_probe("readinessProbe", port)
    assert not run_probe("livenessProbe", port)


def test_what_takes_connections_and_does_not_answer_is_neither_ready_nor_alive() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        assert not run_probe("readinessProbe", server.server_port)
        assert not run_probe("livenessProbe", server.server_port)


def test_the_probes_see_a_worker_load_and_get_ready() -> None:
    engine = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    loading = clean_environment(FAKE_ENGINE_MODE="wait")
    with running(engine, loading, output=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with running_http_worker(INFINITY_URL=url) as worker:
            port = int(worker.url.rpartition(":")[2])
            assert worker.ping() == 204
            assert not run_probe("readinessProbe", port)
            assert run_probe("livenessProbe", port)
            httpx.post(f"{url}/mode/ok", timeout=BOUND_S)
            worker.until_ping(200)
            assert run_probe("readinessProbe", port)
            assert run_probe("livenessProbe", port)
