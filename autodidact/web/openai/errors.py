"""Errors under `/v1` as OpenAI's clients read them: `{"error": {message, type, param, code}}`.

Whatever goes wrong there is answered in this form, also by what never reaches a route (size,
host, no such path): see `openai.error_response` for exceptions; `error_body` is for those who have
only a status and a line. Clients try 408, 409, 429 and statuses from 500 again, when
`retry-after-ms` or `Retry-After` say. Bad input is 400 here, as with OpenAI, where our own API says
422. A message never repeats the input.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from autodidact.errors import (
    AutodidactError,
    ContextExceeded,
    GeneratorError,
    ResourceError,
    UnknownModel,
)

PREFIX = "/v1/"
CONTEXT_EXCEEDED = "context_length_exceeded"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_CODES = {429: "rate_limit_exceeded", 503: "overloaded"}


class BadRequest(Exception):
    """A request that cannot be honoured. `param` names the field, None the body as a whole."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def too_long(
    said: str, context: int | None = None, prompt: int | None = None, longest: int | None = None
) -> str:
    """In the words by which clients know that a prompt does not fit and ask another model: LiteLLM
    and LangChain look for them as well as for the code. `said` is the field with the prompt."""
    if context is None:
        return f"This model's maximum context length is exceeded. Please reduce the {said}."
    told = f"This model's maximum context length is {context} tokens. However, "
    if prompt is None:
        return f"{told}no room is left for a reply. Please reduce the {said}."
    if longest is None:
        return f"{told}your {said} resulted in {prompt} tokens. Please reduce the {said}."
    return (
        f"{told}you requested {prompt + longest} tokens ({prompt} in the {said}, {longest} in the "
        f"completion). Please reduce the length of the {said} or the completion."
    )


def body_of(error: Exception) -> dict[str, Any]:
    """The body for any exception that a request under `/v1` ended with."""
    param = code = None
    if isinstance(error, BadRequest):
        param, code = error.param, error.code
    elif isinstance(error, UnknownModel):
        param, code = "model", "model_not_found"
    elif isinstance(error, ContextExceeded):
        code = CONTEXT_EXCEEDED
    return error_body(status_of(error), _message(error), param, code)


def error_body(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """`{"error": …}` for a status and a line that may be shown to anyone."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = code or _CODES.get(status)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def status_of(error: Exception) -> int:
    if isinstance(error, (BadRequest, RequestValidationError)):
        return 400
    if isinstance(error, HTTPException):
        return 400 if error.status_code == 422 else error.status_code
    if isinstance(error, GeneratorError):
        return error.status
    return 507 if isinstance(error, ResourceError) else 500


def _message(error: Exception) -> str:
    if isinstance(error, (AutodidactError, BadRequest)):
        return str(error)
    if isinstance(error, HTTPException):
        if error.detail == HTTPStatus.NOT_FOUND.phrase:
            return "no such address; there are /v1/chat/completions, /v1/completions, /v1/models"
        return str(error.detail)
    if isinstance(error, RequestValidationError):
        return "the address or the query of the request is not valid"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory on the server"
    return "an error on the server, which its log tells"
