"""The other side of the comparison: a lock around `model.generate`, as most projects serve.

    python benchmarks/load/naive.py --model DIR [--adapter DIR] --port P --threads N --dtype T

FastAPI, a PEFT model, transformers' streamer, one lock. It takes the same requests as `/chat` and
sends the same events, so that one client measures both: one `text` event for each item of the
streamer, which is one a token (empty while a word is not complete). It does what a careful author
of such a server would: the lock is fair, a reader who leaves ends the generation, `--merged` folds
the adapter into the weights (which a server that changes adapters cannot).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from peft import PeftModel
from pydantic import BaseModel
from transformers import (
    AsyncTextIteratorStreamer,
    AutoModelForCausalLM,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
)


class Ask(BaseModel):
    """What of a `/chat` request matters here."""

    message: str
    max_length: int = 512
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 50
    seed: int = 0


class Left(StoppingCriteria):
    """Ends the generation once the reader has left."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


def load(folder: Path, adapter: Path | None, dtype: str, merged: bool) -> tuple[Any, Any]:
    """Model and tokenizer."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = model.to(device)
    if adapter is not None:
        wrapped = PeftModel.from_pretrained(model, str(adapter))
        model = wrapped.merge_and_unload() if merged else wrapped.to(getattr(torch, dtype))
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def sampling(ask: Ask) -> dict[str, Any]:
    """Arguments of `generate`: replies of exactly the length that was asked for."""
    length = {"max_new_tokens": ask.max_length, "min_new_tokens": ask.max_length}
    if ask.temperature == 0:
        return {**length, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    warp = {"temperature": ask.temperature, "top_p": ask.top_p, "top_k": ask.top_k}
    return {**length, "do_sample": True, **warp}


def build_app(model: Any, tokenizer: Any) -> FastAPI:
    app = FastAPI()
    lock = asyncio.Lock()

    @app.post("/chat")
    async def chat(ask: Ask) -> StreamingResponse:
        return StreamingResponse(reply(ask), media_type="text/event-stream")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def reply(ask: Ask) -> AsyncIterator[bytes]:
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": ask.message}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(model.device)
        async with lock:
            streamer = AsyncTextIteratorStreamer(tokenizer, skip_prompt=True)
            left = Left()
            arguments = {
                **inputs,
                **sampling(ask),
                "streamer": streamer,
                "stopping_criteria": StoppingCriteriaList([left]),
            }

            def work() -> None:
                try:
                    torch.manual_seed(ask.seed)
                    model.generate(**arguments)
                finally:
                    streamer.end()

            thread = threading.Thread(target=work)
            thread.start()
            try:
                tokens = 0
                async for text in streamer:
                    # The streamer's last items flush what it held back: no tokens of their own.
                    tokens = min(tokens + 1, ask.max_length)
                    yield event("text", {"t": text, "n": tokens})
                yield event("done", {"tokens": tokens})
            finally:
                left.event.set()
                await asyncio.shield(asyncio.to_thread(thread.join))

    return app


def event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--merged", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load(args.model, args.adapter, args.dtype, args.merged)
    uvicorn.run(build_app(model, tokenizer), port=args.port, log_level="warning", http="h11")


if __name__ == "__main__":
    main()
