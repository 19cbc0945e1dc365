"""The official `openai` client against the server: what it sends is understood, what it gets it
can read, and its errors are the ones that it knows how to handle."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import threading
from collections.abc import Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from autodidact.errors import Busy, RateExceeded
from autodidact.settings import PROJECT
from autodidact.types.chat import Delta, Message
from autodidact.web.openai.requests import ChatAsked, ReplyRequest, TextAsked
from tests.web.fakes import LiveServer, QueueGenerator, endless
from tests.web.wire import run_apart

WHO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who?"}]


@pytest.fixture
def api(server: LiveServer) -> Iterator[OpenAI]:
    """A client that does not try again, so that each test sees the first answer."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=30) as api:
        yield api


# Chat -----------------------------------------------------------------------------------------


def test_a_chat(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["Edmund ", "Hale."])
    reply = api.chat.completions.create(
        model="autodidact",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Who"}]},
            {"role": "assistant", "content": "Where?"},
            {"role": "user", "content": "Here."},
        ],
    )
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Edmund Hale.")
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (reply.object, reply.model) == ("chat.completion", "autodidact@42")
    assert reply.system_fingerprint == "autodidact@42"
    assert reply.id.startswith("chatcmpl-")
    assert reply.usage is not None
    assert reply.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
    }  # fmt: skip
    assert generator.asked[0][0] == (
        Message("system", "Be brief."),
        Message("user", "Who"),
        Message("assistant", "Where?"),
        Message("user", "Here."),
    )


def test_a_reply_may_be_sent_back_as_it_came(api: OpenAI, generator: QueueGenerator) -> None:
    said = api.chat.completions.create(model="autodidact", messages=WHO).choices[0].message
    api.chat.completions.create(model="autodidact", messages=[*WHO, said, *WHO])  # type: ignore[list-item]
    api.chat.completions.create(
        model="autodidact",
        messages=[*WHO, said.model_dump(), *WHO],  # type: ignore[list-item]
    )
    assert [m.content for m in generator.asked[1][0]] == ["Who?", "Who?", "Who?"]
    assert generator.asked[1][0] == generator.asked[2][0]


def test_what_a_client_sets_reaches_the_generator(api: OpenAI, generator: QueueGenerator) -> None:
    api.chat.completions.create(
        model="base",
        messages=WHO,
        temperature=1,
        top_p=0.5,
        max_completion_tokens=9,
        stop=["\n", "END"],
        seed=7,
        presence_penalty=-1,
        frequency_penalty=0.5,
        user="someone",
        metadata={"a": "b"},
        store=False,
        extra_body={"top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2},
    )
    assert generator.asked[0][2] == "base"
    params = generator.begun[0].params
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (1, 0.5, 3, 0.1)
    assert (params.max_new_tokens, params.stop, params.seed) == (9, ("\n", "END"), 7)
    assert (params.presence_penalty, params.frequency_penalty) == (-1, 0.5)
    assert (params.repetition_penalty, params.logprobs) == (1.2, None)


def test_what_a_client_leaves_out_is_as_in_chat(api: OpenAI, generator: QueueGenerator) -> None:
    api.chat.completions.create(model="autodidact", messages=WHO)
    generator.set(context=100)
    api.chat.completions.create(model="autodidact", messages=WHO)
    long, short = (prepared.params for prepared in generator.begun)
    assert (long.temperature, long.top_p, long.top_k, long.stop) == (0.7, 0.9, 50, ())
    assert long.max_new_tokens == 512
    assert short.max_new_tokens == 98, "the room that is left, where there is less"
    assert long.seed != short.seed


def test_one_stop_string(api: OpenAI, generator: QueueGenerator) -> None:
    api.chat.completions.create(model="autodidact", messages=WHO, stop="END")
    assert generator.begun[0].params.stop == ("END",)


@pytest.mark.parametrize(("finish", "told"), [("length", "length"), ("time", "length")])
def test_why_a_reply_ended(api: OpenAI, generator: QueueGenerator, finish: str, told: str) -> None:
    generator.replies.append([Delta("half", 1, finish)])  # type: ignore[arg-type]
    reply = api.chat.completions.create(model="autodidact", messages=WHO)
    assert reply.choices[0].finish_reason == told


def test_several_choices_differ_in_their_seeds(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append([lambda params: f"seed {params.seed}"])
    reply = api.chat.completions.create(model="autodidact", messages=WHO, n=3, seed=2**32 - 1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [choice.message.content for choice in reply.choices] == [
        "seed 4294967295", "seed 0", "seed 1",
    ]  # fmt: skip
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2, 3)
    assert len(generator.asked) == 1, "they share the prompt"


def test_choices_without_a_seed_differ_too(api: OpenAI, generator: QueueGenerator) -> None:
    api.chat.completions.create(model="autodidact", messages=WHO, n=2)
    assert len({prepared.params.seed for prepared in generator.begun}) == 2


def test_log_probabilities(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["é ", Delta("", 0), "b"])
    reply = api.chat.completions.create(
        model="autodidact", messages=WHO, logprobs=True, top_logprobs=2
    )
    assert generator.begun[0].params.logprobs == 2
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    first, second = logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("é ", -0.5, list("é ".encode()))
    assert [(top.token, top.logprob) for top in second.top_logprobs] == [
        ("b", -0.5), ("other1", -1.5),
    ]  # fmt: skip


def test_log_probabilities_alone(api: OpenAI, generator: QueueGenerator) -> None:
    reply = api.chat.completions.create(model="autodidact", messages=WHO, logprobs=True)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert [(one.token, one.top_logprobs) for one in logprobs.content or []] == [("Who?", [])]
    assert generator.begun[0].params.logprobs == 0


# Streams --------------------------------------------------------------------------------------


def test_a_streamed_chat(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["Edmund ", "Hale."])
    stream = api.chat.completions.create(
        model="autodidact",
        messages=WHO,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert stream.response.headers["X-Model-Version"] == "42"
    *chunks, last = list(stream)
    assert {chunk.id for chunk in (*chunks, last)} == {last.id}
    assert {chunk.created for chunk in (*chunks, last)} == {last.created}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Edmund Hale."
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 2)


def test_a_stream_without_usage(api: OpenAI) -> None:
    chunks = list(api.chat.completions.create(model="autodidact", messages=WHO, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_text_arrives_while_the_reply_is_being_made(api: OpenAI, generator: QueueGenerator) -> None:
    go_on = threading.Event()
    generator.replies.append(["first ", go_on, "last"])
    stream = api.chat.completions.create(model="autodidact", messages=WHO, stream=True)
    texts = (chunk.choices[0].delta.content for chunk in stream)
    assert next(text for text in texts if text) == "first "
    go_on.set()
    assert next(text for text in texts if text) == "last"


def test_streamed_choices_keep_their_index(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append([lambda params: f"seed {params.seed}", "."])
    texts, ended = {0: "", 1: ""}, set()
    for chunk in api.chat.completions.create(
        model="autodidact", messages=WHO, stream=True, n=2, seed=5
    ):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ended.add((choice.index, choice.finish_reason))
    assert texts == {0: "seed 5.", 1: "seed 6."}
    assert ended == {(0, "stop"), (1, "stop")}


def test_streamed_log_probabilities(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["a", "b"])
    stream = api.chat.completions.create(
        model="autodidact", messages=WHO, stream=True, logprobs=True, top_logprobs=1
    )
    tokens = [
        one.token
        for chunk in stream
        for choice in chunk.choices
        if choice.logprobs is not None
        for one in choice.logprobs.content or []
    ]
    assert tokens == ["a", "b"]


def test_a_failure_in_the_middle_of_a_stream(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["half ", RuntimeError("secret detail")])
    stream = api.chat.completions.create(model="autodidact", messages=WHO, stream=True)
    with pytest.raises(openai.APIError, match="an error on the server") as failed:
        list(stream)
    assert "secret" not in str(failed.value.body)


def test_a_reader_who_leaves_stops_the_generation(
    api: OpenAI, generator: QueueGenerator, server: LiveServer
) -> None:
    generator.replies.append(endless())
    stream = api.chat.completions.create(model="autodidact", messages=WHO, stream=True)
    next(stream)
    stream.close()
    assert generator.closed.wait(10)
    server.app.state.site.replies.shutdown(wait=True)
    assert generator.finished == 0


def test_a_reader_of_a_whole_reply_who_leaves_stops_it_too(
    api: OpenAI, generator: QueueGenerator
) -> None:
    generator.replies.append(endless())
    with pytest.raises(openai.APITimeoutError):
        api.chat.completions.create(model="autodidact", messages=WHO, timeout=0.5)
    assert generator.closed.wait(10)
    assert generator.finished == 0


# Completions ----------------------------------------------------------------------------------


def test_a_text_is_gone_on_with(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append([" upon", " a time"])
    reply = api.completions.create(model="autodidact", prompt="Once", temperature=0, stop="\n")
    assert generator.texts == ["Once"]
    assert (reply.object, reply.model) == ("text_completion", "autodidact@42")
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == (" upon a time", "stop")
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1, 2)
    params = generator.begun[0].params
    assert (params.max_new_tokens, params.temperature, params.stop) == (16, 0, ("\n",))


def test_a_list_of_one_prompt(api: OpenAI, generator: QueueGenerator) -> None:
    api.completions.create(model="autodidact", prompt=["Once"], max_tokens=3, echo=False, n=2)
    assert generator.texts == ["Once"]
    assert [prepared.params.max_new_tokens for prepared in generator.begun] == [3, 3]


def test_log_probabilities_in_the_old_form(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append([" é", " b"])
    reply = api.completions.create(model="autodidact", prompt="Once", logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs) == ([" é", " b"], [-0.5, -0.5])
    assert logprobs.top_logprobs == [{" é": -0.5, "other1": -1.5}, {" b": -0.5, "other1": -1.5}]
    assert logprobs.text_offset == [4, 6], "in characters, from the prompt's beginning"


def test_a_streamed_text(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append([" upon", " a"])
    chunks = list(
        api.completions.create(
            model="autodidact",
            prompt="Once",
            logprobs=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == " upon a"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, "stop"]
    offsets = [chunk.choices[0].logprobs.text_offset for chunk in chunks[:2]]  # type: ignore[union-attr]
    assert offsets == [[4], [9]]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 3


# Models ---------------------------------------------------------------------------------------


def test_models(api: OpenAI) -> None:
    listed = list(api.models.list())
    assert [model.id for model in listed] == ["autodidact", "autodidact@42", "base"]
    assert {(model.object, model.owned_by) for model in listed} == {("model", "autodidact")}
    for model in listed:
        assert api.models.retrieve(model.id) == model
    assert api.models.retrieve("autodidact@0").id == "autodidact@0"


def test_the_base_can_be_asked_for(api: OpenAI) -> None:
    reply = api.chat.completions.create(model="base", messages=WHO)
    assert (reply.model, reply.system_fingerprint) == ("base", "autodidact@0")


# Errors ---------------------------------------------------------------------------------------


def test_a_model_that_is_not_there(api: OpenAI) -> None:
    for ask in (
        lambda: api.chat.completions.create(model="gpt-4o", messages=WHO),
        lambda: api.completions.create(model="gpt-4o", prompt="Once"),
        lambda: api.models.retrieve("gpt-4o"),
    ):
        with pytest.raises(openai.NotFoundError, match="there are") as refused:
            ask()
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_prompt_that_does_not_fit(api: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(model="autodidact", messages=WHO, max_completion_tokens=1023)
    assert refused.value.code == "context_length_exceeded"
    assert "This model's maximum context length is 1024 tokens." in refused.value.message
    assert "you requested 1025 tokens (2 in the messages, 1023" in refused.value.message
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024") as refused:
        api.completions.create(model="autodidact", prompt="word " * 2000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


def test_what_is_not_supported_says_so(api: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(
            model="autodidact", messages=WHO, response_format={"type": "json_object"}
        )
    assert (refused.value.param, refused.value.code) == ("response_format", "unsupported_value")
    assert refused.value.type == "invalid_request_error"


def test_a_busy_server(api: OpenAI, generator: QueueGenerator) -> None:
    generator.refusals.append(Busy("too many", retry_after_s=4))
    with pytest.raises(openai.InternalServerError, match="too many") as refused:
        api.chat.completions.create(model="autodidact", messages=WHO)
    assert refused.value.status_code == 503
    headers = refused.value.response.headers
    assert (headers["Retry-After"], headers["retry-after-ms"]) == ("4", "4000")


def test_one_address_too_often(api: OpenAI, generator: QueueGenerator) -> None:
    generator.refusals.append(RateExceeded("too often", retry_after_s=9))
    with pytest.raises(openai.RateLimitError, match="too often") as refused:
        api.chat.completions.create(model="autodidact", messages=WHO)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["Retry-After"] == "9"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_tries_again_when_it_is_told_to(
    api: OpenAI, generator: QueueGenerator, stream: bool
) -> None:
    """Busy is found out by `prepare`, or only once the reply's turn does not come."""
    generator.refusals.append(Busy("too many", retry_after_s=1))
    generator.replies.extend([[Busy("its turn did not come", retry_after_s=1)], ["Edmund"]])
    patient = api.with_options(max_retries=2)
    if stream:
        chunks = patient.chat.completions.create(model="autodidact", messages=WHO, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        reply = patient.chat.completions.create(model="autodidact", messages=WHO)
        text = reply.choices[0].message.content or ""
    assert text == "Edmund"


def test_no_place_for_that_many_choices(api: OpenAI, generator: QueueGenerator) -> None:
    """Three places: one is taken, three more are not free now; four never will be."""
    go_on = threading.Event()
    generator.replies.append(["a", go_on])
    running = api.chat.completions.create(model="autodidact", messages=WHO, stream=True)
    with pytest.raises(openai.InternalServerError, match="busy"):
        api.chat.completions.create(model="autodidact", messages=WHO, n=3)
    reply = api.chat.completions.create(model="autodidact", messages=WHO, n=2)
    assert len(reply.choices) == 2
    with pytest.raises(openai.BadRequestError, match="at most 3"):
        api.chat.completions.create(model="autodidact", messages=WHO, n=4)
    go_on.set()
    list(running)


def test_no_model_yet(api: OpenAI, generator: QueueGenerator) -> None:
    generator.set(state="loading")
    with pytest.raises(openai.InternalServerError, match="loading") as refused:
        api.chat.completions.create(model="autodidact", messages=WHO)
    assert refused.value.status_code == 503


def test_a_failure(api: OpenAI, generator: QueueGenerator) -> None:
    generator.replies.append(["half ", RuntimeError("secret detail")])
    with pytest.raises(openai.InternalServerError) as failed:
        api.chat.completions.create(model="autodidact", messages=WHO)
    assert failed.value.status_code == 500
    assert "secret" not in failed.value.response.text


# Async ----------------------------------------------------------------------------------------


def test_the_async_client(server: LiveServer, generator: QueueGenerator) -> None:
    async def talk() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api:
            whole, stream = await asyncio.gather(
                api.chat.completions.create(model="autodidact", messages=WHO),
                api.chat.completions.create(model="autodidact", messages=WHO, stream=True),
            )
            text = ""
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
            return whole.choices[0].message.content, text

    assert run_apart(talk()) == ("Who?", "Who?")


def test_an_async_reader_who_is_cancelled_stops_the_generation(
    server: LiveServer, generator: QueueGenerator
) -> None:
    generator.replies.append(endless())

    async def leave() -> None:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as api:
            stream = await api.chat.completions.create(
                model="autodidact", messages=WHO, stream=True
            )
            await anext(stream)
            reading = asyncio.create_task(anext(stream))
            reading.cancel()
            await stream.close()

    run_apart(leave())
    assert generator.closed.wait(10)


# The page about it ----------------------------------------------------------------------------

PAGE = (PROJECT / "docs" / "openai.md").read_text("utf-8")


@pytest.mark.parametrize("example", re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M))
def test_examples_run(server: LiveServer, generator: QueueGenerator, example: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example.replace("http://127.0.0.1:8000", server.url), {})
    assert generator.begun
    assert printed.getvalue().strip()


@pytest.mark.parametrize("kind", [ChatAsked, TextAsked])
def test_every_field_is_on_the_page(kind: type[ReplyRequest]) -> None:
    assert [name for name in kind.model_fields if f"`{name}`" not in PAGE] == []
