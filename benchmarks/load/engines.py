"""Engines without HTTP: how many tokens a second each makes of N requests that come at once.

    python benchmarks/load/engines.py PLAN.json RESULT.json

One measurement a process. PLAN: `engine` (generate, generate8, generate32, continuous, ours),
`requests`, `prompts` (token ids), `reply`, `model`, `adapter` (folder of a version), `threads`,
`dtype`, `merged`, `greedy`, `max_concurrent`, `prefill_tokens`. RESULT: `seconds`, `tokens`,
`tokens_s`, or `error`, one line. The first, shorter run of each is not counted.

- generate: transformers' `generate`, one request after another
- generate8, generate32: fixed batches of so many, padded to nothing (prompts are equally long)
- continuous: transformers' continuous batching, its own defaults but for the cache's size, which it
  can only find out on a GPU
- ours: the batcher of the chat server
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

TEMPERATURE, TOP_P, TOP_K = 0.7, 0.9, 50
PAGE = 256
Run = Callable[[Sequence[list[int]], int], int]
"""Generates replies of that many tokens to all prompts; gives the number of tokens."""


def generate(plan: dict[str, Any]) -> Run:
    from benchmarks.load import naive

    size = int(plan["engine"].removeprefix("generate") or 1)
    model, _ = naive.load(Path(plan["model"]), Path(plan["adapter"]), plan["dtype"], plan["merged"])

    def run(prompts: Sequence[list[int]], reply: int) -> int:
        made = 0
        ask = naive.Ask(message="", max_length=reply, temperature=temperature(plan))
        for first in range(0, len(prompts), size):
            ids = torch.tensor(prompts[first : first + size], device=model.device)
            mask = torch.ones_like(ids)
            out = model.generate(input_ids=ids, attention_mask=mask, **naive.sampling(ask))
            made += out.shape[0] * (out.shape[1] - ids.shape[1])
        return made

    return run


def continuous(plan: dict[str, Any]) -> Run:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    from benchmarks.load import naive

    model, _ = naive.load(Path(plan["model"]), Path(plan["adapter"]), plan["dtype"], plan["merged"])
    model = getattr(getattr(model, "base_model", None), "model", model)  # out of PEFT's wrapper

    def run(prompts: Sequence[list[int]], reply: int) -> int:
        warp = {"temperature": TEMPERATURE, "top_p": TOP_P, "top_k": TOP_K}
        greedy = temperature(plan) == 0
        asked = GenerationConfig(
            max_new_tokens=reply,
            do_sample=not greedy,
            eos_token_id=-1,
            pad_token_id=0,
            **({} if greedy else warp),
        )
        pages = -(-(len(prompts[0]) + reply) // PAGE)
        sizes = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages * len(prompts) + 1,
            max_batch_tokens=max(len(prompts), len(prompts[0])),
        )
        done = model.generate_batch(
            list(prompts),
            generation_config=asked,
            continuous_batching_config=sizes,
            persistent_manager=True,  # making the cache is not part of what is timed
        )
        faults = [output.error for output in done.values() if output.error]
        if faults or len(done) < len(prompts):
            told = str(faults[0] if faults else "its thread ended").strip()
            raise RuntimeError(f"{len(prompts) - len(done)} missing: {told}")
        return sum(len(output.generated_tokens) for output in done.values())

    return run


def ours(plan: dict[str, Any]) -> Run:
    from autodidact import checkpoints
    from autodidact.engine import Engine
    from autodidact.engine.batcher import Batcher
    from autodidact.models import loading
    from autodidact.types.chat import SamplingParams

    base = loading.load(Path(plan["model"]), plan["threads"], dtype=plan["dtype"])
    engine = Engine(base)
    adapter = Path(plan["adapter"])
    config, weights = adapter / checkpoints.CONFIG, adapter / checkpoints.WEIGHTS
    version = engine.load(1, config.read_bytes(), weights.read_bytes())
    batcher = Batcher(
        engine,
        max_concurrent=plan["max_concurrent"],
        prefill_tokens=plan["prefill_tokens"],
    )
    batcher.start()

    def run(prompts: Sequence[list[int]], reply: int) -> int:
        tickets = [
            batcher.submit(
                version,
                prompt,
                SamplingParams(temperature(plan), TOP_P, TOP_K, reply, seed=number),
            )
            for number, prompt in enumerate(prompts)
        ]
        return sum(sum(1 for _ in ticket) for ticket in tickets)

    return run


def temperature(plan: dict[str, Any]) -> float:
    return 0.0 if plan["greedy"] else TEMPERATURE


def measure(plan: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(plan["threads"])
    torch.manual_seed(0)
    make = {"continuous": continuous, "ours": ours}.get(plan["engine"], generate)
    run = make(plan)
    prompts = plan["prompts"][: plan["requests"]]
    run(prompts, 4)
    begun = time.perf_counter()
    made = run(prompts, plan["reply"])
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "tokens": made, "tokens_s": made / seconds}


def main() -> None:
    plan, result = (Path(argument) for argument in sys.argv[1:3])
    try:
        found = measure(json.loads(plan.read_text("utf-8")))
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    result.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
