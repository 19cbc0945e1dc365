"""`/metrics`, `/ready`: what machines ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from autodidact.learning.progress import STATES
from autodidact.web.metrics import LEARNER_STATES
from tests.web.fakes import Learner, LiveServer, QueueGenerator, endless
from tests.web.wire import events, until

Sample = tuple[str, frozenset[tuple[str, str]]]


class CountingGenerator(QueueGenerator):
    """Tells figures and measurements, as the local model does."""

    def __init__(self) -> None:
        super().__init__()
        self.observe: Callable[[str, float], None] = lambda name, value: None
        self.told: dict[str, float] = {"requests_total": 3, "tokens_total": 120, "waiting": 2}

    def figures(self) -> dict[str, float]:
        return {**self.told, "live": self.status().live}


@pytest.fixture
def counting(home: Path) -> Iterator[tuple[httpx.Client, CountingGenerator]]:
    generator = CountingGenerator()
    server = LiveServer(home, generator).start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client, generator
    server.stop()


def read(client: httpx.Client) -> dict[Sample, float]:
    """All samples, read by Prometheus' own parser."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def sample(name: str, **labels: str) -> Sample:
    return f"autodidact_{name}", frozenset(labels.items())


def test_the_generator_s_figures(
    counting: tuple[httpx.Client, CountingGenerator],
) -> None:
    client, generator = counting
    generator.told |= {"reload_seconds_sum": 1.5, "quite_new": 7}
    seen = read(client)
    assert seen[sample("requests_total")] == 3
    assert seen[sample("tokens_total")] == 120
    assert seen[sample("waiting")] == 2
    assert seen[sample("reload_seconds_total")] == 1.5
    assert seen[sample("quite_new")] == 7
    generator.told["tokens_total"] = 121
    assert read(client)[sample("tokens_total")] == 121


def test_what_the_generator_measures(
    counting: tuple[httpx.Client, CountingGenerator],
) -> None:
    client, generator = counting
    for seconds in (0.02, 0.2, 90.0):
        generator.observe("first_token_seconds", seconds)
    generator.observe("token_gap_seconds", 0.004)
    generator.observe("reply_seconds", 3.0)
    generator.observe("queue_seconds", 0.0)
    generator.observe("never_heard_of", 1.0)  # and nothing breaks
    seen = read(client)
    assert seen[sample("first_token_seconds_count")] == 3
    assert seen[sample("first_token_seconds_sum")] == pytest.approx(90.22)
    assert seen[sample("first_token_seconds_bucket", le="0.025")] == 1
    assert seen[sample("first_token_seconds_bucket", le="0.25")] == 2
    assert seen[sample("token_gap_seconds_bucket", le="0.005")] == 1
    assert seen[sample("reply_seconds_count")] == seen[sample("queue_seconds_count")] == 1


def test_a_generator_that_tells_nothing(client: httpx.Client, generator: QueueGenerator) -> None:
    seen = read(client)
    assert sample("requests_total") not in seen
    assert seen[sample("first_token_seconds_count")] == 0
    assert seen[sample("live_version")] == 42
    generator.set(live=43)
    assert read(client)[sample("live_version")] == 43
    assert seen[sample("ready")] == 1
    generator.set(state="loading")
    assert read(client)[sample("ready")] == 0
    assert seen[sample("uptime_seconds")] > 0
    assert seen["process_start_time_seconds", frozenset()] > 1e9


def test_the_learner(client: httpx.Client, learner: Learner) -> None:
    assert read(client)[sample("learner_state", state="idle")] == 0
    learner.say("training", cycle=43, queued=5)
    seen = read(client)
    assert seen[sample("learner_state", state="training")] == 1
    assert sum(seen[sample("learner_state", state=state)] for state in LEARNER_STATES) == 1
    assert seen[sample("learner_cycle")] == 43
    assert seen[sample("learner_queued_documents")] == 5
    learner.say("a state from the future")
    seen = read(client)
    assert seen[sample("learner_state", state="other")] == 1
    assert not any("future" in str(name) for name in seen)


def test_every_state_of_the_learner_has_its_name() -> None:
    assert set(STATES.values()) < set(LEARNER_STATES)


def test_responses_by_route_and_status(client: httpx.Client, generator: QueueGenerator) -> None:
    client.post("/chat", json={"message": "Who?"})
    client.post("/chat", json={"message": "Who?"})
    client.post("/chat", json={"message": ""})
    generator.replies.append([RuntimeError("broken")])
    client.post("/chat", json={"message": "Who?"})
    client.get("/c/my-secret-conversation")
    client.get("/c/another")
    client.get("/static/app.css")
    client.get("/no/such/address")
    client.get("/chat")
    client.post("/chat", content=b"x" * 70_000)
    client.get("/health", headers={"Host": "evil.example"})
    seen = read(client)

    def count(route: str, status: int) -> float:
        return seen.get(sample("http_responses_total", route=route, status=str(status)), 0)

    assert [count("/chat", status) for status in (200, 422, 500, 405)] == [2, 1, 1, 1]
    assert count("/static", 200) == 1
    assert sum(count("/c/{conversation_id}", status) for status in (200, 303, 307, 404)) == 2
    assert (count("other", 404), count("other", 413), count("other", 400)) == (1, 1, 1)


def test_labels_are_bounded_and_nothing_that_people_write_is_told(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    generator.replies.append(["tell-no-one-reply"])
    client.post("/chat", json={"message": "tell-no-one-question"})
    before = len(read(client))
    for n in range(30):
        client.get(f"/tell-no-one-{n}")
        client.get(f"/c/tell-no-one-{n}")
        client.get(f"/static/tell-no-one-{n}?q=tell-no-one")
        client.request("TELL-NO-ONE", "/chat")
        client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=x"})
    text = client.get("/metrics").text
    assert "tell-no-one" not in text.lower()
    assert len(read(client)) - before < 15


def test_two_apps_in_one_process_count_apart(home: Path, client: httpx.Client) -> None:
    (home / "other").mkdir()
    other = LiveServer(home / "other", QueueGenerator()).start()
    try:
        with httpx.Client(base_url=other.url) as second:
            second.get("/ready")
            name = sample("http_responses_total", route="/ready", status="200")
            assert read(second)[name] == 1
            assert name not in read(client)
    finally:
        other.stop()


# /ready -------------------------------------------------------------------------------------------


def ready(client: httpx.Client) -> tuple[int, str]:
    response = client.get("/ready")
    told = response.json()["status"]
    if response.status_code == 503:
        assert 1 <= int(response.headers["Retry-After"]) <= 60
    else:
        assert "Retry-After" not in response.headers
    assert response.headers["Cache-Control"] == "no-store"
    return response.status_code, told


def test_ready_while_a_model_answers(client: httpx.Client, generator: QueueGenerator) -> None:
    assert ready(client) == (200, "ready")
    generator.set(state="loading")
    assert ready(client) == (503, "loading")
    generator.set(state="failed", reason="no such file")
    assert ready(client) == (503, "failed")


def test_a_full_server_is_healthy_but_not_ready(
    client: httpx.Client, generator: QueueGenerator
) -> None:
    go_on = threading.Event()
    generator.replies.extend([["a", go_on, "b"] for _ in range(3)])
    asking = [
        threading.Thread(target=httpx.post, args=(f"{client.base_url}/chat",), kwargs=kwargs)
        for kwargs in [{"json": {"message": "Who?"}, "timeout": 30}] * 3
    ]
    for thread in asking:
        thread.start()
    while client.get("/ready").json()["active"] < 3:
        pass
    assert ready(client) == (503, "full")
    assert client.get("/health").status_code == 200
    assert read(client)[sample("places_taken")] == read(client)[sample("places")] == 3
    go_on.set()
    for thread in asking:
        thread.join()
    assert ready(client) == (200, "ready")


def test_not_ready_any_more_when_the_server_goes_down(
    server: LiveServer, client: httpx.Client, generator: QueueGenerator
) -> None:
    """The connection was open before; a stream keeps the server from closing it at once."""
    generator.replies.append(endless())
    assert ready(client) == (200, "ready")
    with httpx.Client(base_url=server.url, timeout=30) as other:
        with other.stream("POST", "/chat", json={"message": "x", "stream": True}) as response:
            stream = events(response)
            until(stream, "text")
            server.app.state.site.shutdown.begin()
            assert until(stream, "error")["kind"] == "stopping"
        assert ready(client) == (503, "stopping")
