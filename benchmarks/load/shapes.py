"""Models and adapters for the serving benchmark, random where weights do not matter.

`endless` makes a copy of a base whose replies never end by themselves: its stop token has an id one
past the model's vocabulary, for which there is no logit, so every reply has exactly the length that
was asked for, however it is sampled, and all weights stay what they were. Only the tokens that
mark the end of a turn or text have other names there, because a server knows those by name.

Do not train on such a copy: its stop token has no embedding.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autodidact import checkpoints
from autodidact.models import bases
from autodidact.settings import PROJECT

STARTER = PROJECT / "models" / "starter"
NEVER = "<|never|>"
RENAMED = {"<|im_end|>": "<|turn_end|>", "<|endoftext|>": "<|text_end|>"}


def make(shape: str, folder: Path) -> Path:
    """A base of this shape ("starter" or "135m") with endless replies, in `folder`."""
    if (folder / "config.json").exists():
        return folder
    if shape == "starter":
        return endless(STARTER, folder)
    with tempfile.TemporaryDirectory() as plain:
        return endless(random_135m(Path(plain)), folder)


def random_135m(folder: Path) -> Path:
    """SmolLM2-135M's shape with random weights and the starter's tokenizer padded to its size.

    No pad token in the configuration: its embedding would begin as zeros, and thirty norms of a
    zero vector make gradients overflow, as in no trained model.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rms_norm_eps=1e-5, rope_theta=100000.0, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(STARTER / name, folder)
    return folder


def endless(source: Path, folder: Path) -> Path:
    """A copy of `source` (a folder with the starter's tokenizer) whose replies never end."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text("utf-8"))
    size = int(config["vocab_size"])
    shutil.copy(source / "model.safetensors", folder)
    names = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    texts = {name: (source / name).read_text("utf-8") for name in names}
    for old, new in RENAMED.items():
        texts = {name: text.replace(old, new) for name, text in texts.items()}
    tokenizer = json.loads(texts["tokenizer.json"])
    vocabulary = tokenizer["model"]["vocab"]
    for number in range(len(vocabulary), size):
        vocabulary[f"Ġw{number}"] = number  # never made of text, but shown as " w5000" in replies
    like = tokenizer["added_tokens"][-1]
    # Ends of turns come in the middle of such a reply, and are shown: each token is to be seen.
    shown = [{**token, "special": False} for token in tokenizer["added_tokens"]]
    tokenizer["added_tokens"] = [*shown, {**like, "id": size, "content": NEVER}]
    texts["tokenizer.json"] = json.dumps(tokenizer, ensure_ascii=False)
    settings = {**json.loads(texts["tokenizer_config.json"]), "eos_token": NEVER}
    texts["tokenizer_config.json"] = json.dumps(settings)
    stops = {"bos_token_id": 0, "eos_token_id": size, "pad_token_id": 0}
    texts["generation_config.json"] = json.dumps({"_from_model_config": False, **stops})
    texts["config.json"] = json.dumps({**config, "eos_token_id": None})
    for name in sorted(texts, key=lambda name: name == "config.json"):
        (folder / name).write_text(texts[name], "utf-8")
    return folder


class Adapters:
    """Random LoRA adapters on all linear layers of the base in `folder`, or of some of its blocks,
    each from its seed."""

    def __init__(
        self, folder: Path, rank: int, spread: float, blocks: list[int] | None = None
    ) -> None:
        import torch
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
        from transformers import AutoModelForCausalLM

        from autodidact.models.loading import linear_names

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        names = linear_names(model)
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=names,
            layers_to_transform=blocks,
            task_type="CAUSAL_LM",
        )
        wrapped = get_peft_model(model, config)
        self.spread = spread
        self.shapes = {
            name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(wrapped).items()
        }
        with tempfile.TemporaryDirectory() as saved:
            wrapped.peft_config["default"].save_pretrained(saved)
            self.config = (Path(saved) / checkpoints.CONFIG).read_bytes()

    def weights(self, seed: int) -> bytes:
        """adapter_model.safetensors of the adapter that belongs to the seed."""
        import torch
        from safetensors.torch import save

        generator = torch.Generator().manual_seed(seed)
        return save(
            {
                name: torch.randn(shape, generator=generator) * self.spread
                for name, shape in self.shapes.items()
            }
        )


def publish(home: Path, base: bases.Base, version: int, config: bytes, weights: bytes) -> None:
    """Make an adapter the newest version, as the learner does."""
    staged = checkpoints.staging(home, version) / "adapter"
    staged.mkdir(parents=True, exist_ok=True)
    (staged / checkpoints.CONFIG).write_bytes(config)
    (staged / checkpoints.WEIGHTS).write_bytes(weights)
    (staged / checkpoints.REPORT).write_text(json.dumps({"cycle": version}), "utf-8")
    manifest: dict[str, Any] = {
        "parent": checkpoints.current(home) or None,
        "cycle": version,
        "base": {"name": base.name, "sha256": base.sha256, "revision": ""},
        "document_ids": [],
        "report": {"cycle": version},
    }
    checkpoints.publish(home, staged, version, manifest)
    checkpoints.clear_staging(home)


def prompts(folder: Path, tokens: int, count: int, seed: int = 0) -> list[str]:
    """Different messages whose prompts, chat template included, have exactly so many tokens.

    Raises ValueError where the template alone takes more.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [
        word.removeprefix("Ġ")
        for word, number in tokenizer.get_vocab().items()
        if word.startswith("Ġ") and word[1:].isascii() and word[1:].isalpha() and number < 4096
    ]
    return fitting(
        lambda text: len(prompt_ids(tokenizer, text)), sorted(words), tokens, count, seed
    )


def prompt_ids(tokenizer: Any, message: str) -> list[int]:
    """As the server renders a first message."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def fitting(length: Any, words: Sequence[str], tokens: int, count: int, seed: int) -> list[str]:
    """`count` different texts of random words for which `length(text)` is `tokens`."""
    order = random.Random(seed)
    found: dict[str, None] = {}
    for _ in range(200 * count):
        text = order.choice(words)
        while (used := length(text)) < tokens:
            text = f"{text} {order.choice(words)}"
        if used == tokens:
            found[text] = None
        if len(found) == count:
            return list(found)
    raise ValueError(f"no {count} prompts of exactly {tokens} tokens")
