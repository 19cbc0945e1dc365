"""What OpenAI's clients may ask for: the bodies of `/v1/chat/completions` and `/v1/completions`.

Field by field as in OpenAI's API reference, plus `top_k`, `min_p` and `repetition_penalty`, which
vLLM and others take at the top level too. A documented field that cannot be honoured is accepted
where its value asks for nothing (`tools: []`, `response_format: {"type": "text"}`) and refused
otherwise. A field that no one documents is refused, as OpenAI does: a misspelt one would else be
lost in silence. null is the same as leaving a field out, of whatever name; and what clients copy
back from replies of other services, or mark for their caches, is let through where it changes
nothing of what the model is asked.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from fastapi import HTTPException, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from autodidact.types.chat import Message, SamplingParams
from autodidact.web.guard import Strict, read_body
from autodidact.web.openai.errors import BadRequest

SEEDS = 2**32
MOST_CHOICES = 8
MOST_STOPS = 4
DEFAULT_TEXT_TOKENS = 16
"""OpenAI's default for `/v1/completions`."""
_DEFAULT = SamplingParams()


class Only:
    """Marks a field that is accepted only where it asks for nothing: null or one of `values`."""

    def __init__(self, *values: Any) -> None:
        self.values = (None, *values)

    def check(self, value: Any) -> Any:
        if not any(type(value) is type(one) and value == one for one in self.values):
            raise PydanticCustomError("unsupported", "not supported here; leave it out")
        return value

    def __get_pydantic_core_schema__(self, _: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, _: Any, handler: Any) -> dict[str, Any]:
        return {"enum": list(self.values)}


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("Input should be valid Unicode, without lone surrogates") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]


_IN_PARTS = ("annotations", "cache_control", "id")
"""Taken in a text part, and not shown to the model."""


def _said(value: Any) -> Any:
    """The text of a message: a string, or text parts, which are joined by line breaks."""
    if not isinstance(value, list):
        return value
    texts = []
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise PydanticCustomError("unsupported", "only parts of type text can be read")
        given = {name for name, value in part.items() if value is not None}
        if not isinstance(part.get("text"), str) or not given <= {"type", "text", *_IN_PARTS}:
            raise ValueError("a text part is {type, text}")
        texts.append(part["text"])
    return "\n".join(texts)


def _stops(value: Any) -> Any:
    given = () if value is None else (value,) if isinstance(value, str) else value
    fits = isinstance(given, (list, tuple)) and len(given) <= MOST_STOPS
    if not fits or not all(isinstance(one, str) and one for one in given):
        raise ValueError(f"Input should be a string or a list of up to {MOST_STOPS}, none empty")
    return tuple(given)


def _prompts(value: Any) -> Any:
    """A string, or a list of them."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise PydanticCustomError("unsupported", "Input should be a string or a list of strings")
    return tuple(given)


class _NullsLeftOut(Strict):
    """Also those of fields that are not known."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {k: v for k, v in given.items() if v is not None or k in cls.model_fields}


class ChatMessage(_NullsLeftOut):
    """A message of the dialogue. What a client copies from a reply that it got is accepted."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Text, BeforeValidator(_said, json_schema_input_type=str | list[dict[str, str]])
    ]
    name: Text | None = None
    id: Any = None
    annotations: Any = None
    cache_control: Any = None
    parsed: Any = None
    provider_specific_fields: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    """These ten are taken, and not shown to the model."""
    refusal: Annotated[Any, Only("")] = None
    audio: Annotated[Any, Only()] = None
    tool_calls: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only()] = None

    def message(self) -> Message:
        return Message("system" if self.role == "developer" else self.role, self.content)


class StreamOptions(_NullsLeftOut):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Taken: padding against eavesdroppers, which is never sent."""


class ReplyRequest(_NullsLeftOut):
    """What both bodies share. Defaults of temperature, top-p and top-k are those of `/chat`."""

    model_config = ConfigDict(protected_namespaces=())

    said: ClassVar[str]
    """The name of the field that the model is to answer."""
    likeliest: ClassVar[str]
    """The name of the field that asks for likeliest tokens."""

    model: Annotated[str, Field(max_length=200), AfterValidator(_encodable)] | None = None
    """Which version answers, as `/v1/models` lists them; "autodidact" is the one that serves."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    """Replies to the same prompt; with a seed, reply i uses seed + i."""
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.5, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stop: Annotated[
        tuple[Text, ...],
        BeforeValidator(_stops, json_schema_input_type=str | list[str] | None),
    ] = ()
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """Taken modulo 2**32."""
    user: Any = None
    metadata: Any = None
    store: Any = None
    """These three are taken and ignored: nothing of a request is kept."""
    logit_bias: Annotated[Any, Only({})] = None

    @model_validator(mode="after")
    def _options_belong_to_streams(self) -> ReplyRequest:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "only allowed when stream is true")
        return self

    @property
    def replies(self) -> int:
        """To each prompt."""
        return self.n or 1

    @property
    def usage_wanted(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def longest(self) -> tuple[str, int | None]:
        """The maximum of tokens that was asked for, and the name of its field."""
        return "max_tokens", self.max_tokens

    @property
    def explained(self) -> int | None:
        """How many likeliest tokens to tell at each place; None for no log-probabilities."""
        raise NotImplementedError

    def params(self) -> SamplingParams:
        """How a reply is sampled, but for its length, which depends on the prompt: 1 here."""
        top_k, top_p = _or(self.top_k, _DEFAULT.top_k), _or(self.top_p, _DEFAULT.top_p)
        if top_p == 0:  # the likeliest token alone makes up that share
            top_k, top_p = 1, 1.0
        return SamplingParams(
            temperature=_or(self.temperature, _DEFAULT.temperature),
            top_p=top_p,
            top_k=top_k,
            max_new_tokens=1,
            seed=secrets.randbelow(SEEDS) if self.seed is None else self.seed % SEEDS,
            min_p=_or(self.min_p, _DEFAULT.min_p),
            repetition_penalty=_or(self.repetition_penalty, _DEFAULT.repetition_penalty),
            presence_penalty=_or(self.presence_penalty, _DEFAULT.presence_penalty),
            frequency_penalty=_or(self.frequency_penalty, _DEFAULT.frequency_penalty),
            stop=self.stop,
            logprobs=self.explained,
        )


class ChatAsked(ReplyRequest):
    """The body of `POST /v1/chat/completions`."""

    said = "messages"
    likeliest = "top_logprobs"

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    prediction: Any = None
    parallel_tool_calls: bool | None = None
    """These six change no reply: taken and ignored."""
    audio: Annotated[Any, Only()] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    functions: Annotated[Any, Only([])] = None
    modalities: Annotated[Any, Only(["text"])] = None
    moderation: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only("none")] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    tools: Annotated[Any, Only([])] = None
    verbosity: Annotated[Any, Only("medium")] = None
    web_search_options: Annotated[Any, Only()] = None

    @model_validator(mode="after")
    def _belong_together(self) -> ChatAsked:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("top_logprobs", "only allowed when logprobs is true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise PydanticCustomError("max_tokens", "leave it out beside max_completion_tokens")
        return self

    @property
    def longest(self) -> tuple[str, int | None]:
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().longest

    @property
    def explained(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class TextAsked(ReplyRequest):
    """The body of `POST /v1/completions`."""

    said = "prompt"
    likeliest = "logprobs"

    prompt: Annotated[
        tuple[Annotated[Text, Field(min_length=1)], ...],
        Field(min_length=1, max_length=MOST_CHOICES),
        BeforeValidator(_prompts, json_schema_input_type=str | list[str]),
    ]
    """Each is gone on with by itself; its replies stand together, in the order of the prompts."""
    logprobs: int | None = Field(None, ge=0, le=5)
    best_of: int | None = None
    echo: Annotated[Any, Only(False)] = None
    suffix: Annotated[Any, Only("")] = None

    @model_validator(mode="after")
    def _best_of_all(self) -> TextAsked:
        if self.best_of not in (None, self.replies):
            raise PydanticCustomError("best_of", "not supported here; leave it out")
        return self

    @property
    def explained(self) -> int | None:
        return self.logprobs


Body = TypeVar("Body", bound=ReplyRequest)
Value = TypeVar("Value", int, float)


def _or(value: Value | None, default: Value) -> Value:
    return default if value is None else value


class _Object(Strict):
    """Any JSON object."""

    model_config = ConfigDict(extra="allow")


async def read(request: Request, kind: type[Body]) -> Body:
    """The body of the request. Raises BadRequest with the field, or HTTPException 413."""
    try:
        given = await read_body(request, _Object)
    except HTTPException as error:
        if error.status_code in (400, 422):
            raise BadRequest(str(error.detail)) from None
        raise
    try:
        return kind.model_validate(given.model_extra)
    except ValidationError as error:
        raise _refusal(error, kind) from None


def _refusal(error: ValidationError, kind: type[ReplyRequest]) -> BadRequest:
    """The first error as `messages[0].role: what it should be`; names of unknown fields are not
    repeated."""
    first = error.errors(include_input=False, include_url=False)[0]
    fault, message = first["type"], str(first["msg"]).removeprefix("Value error, ")
    if fault == "extra_forbidden":
        inner: dict[Any, tuple[str, type[BaseModel]]] = {
            "messages": ("a message", ChatMessage),
            "stream_options": ("stream_options", StreamOptions),
        }
        place, known = inner.get(first["loc"][0], ("body", kind))
        names = ", ".join(known.model_fields)
        return BadRequest(f"{place}: unknown field; the fields are {names}")
    param = ""
    for part in first["loc"] or (fault,):
        param += f"[{part}]" if isinstance(part, int) else f".{part}" if param else part
    code = "unsupported_value" if fault == "unsupported" else None
    return BadRequest(f"{param}: {message}", param, code)


def schema(kind: type[BaseModel]) -> dict[str, Any]:
    """A route's `openapi_extra`. Inner models are written out, since an inner `$defs` cannot be
    referred to from the whole document."""
    whole = kind.model_json_schema()
    inner = whole.pop("$defs", {})

    def written_out(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return written_out(inner[part["$ref"].rpartition("/")[2]])
            return {key: written_out(value) for key, value in part.items()}
        return [written_out(one) for one in part] if isinstance(part, list) else part

    content = {"application/json": {"schema": written_out(whole)}}
    return {"requestBody": {"required": True, "content": content}}
