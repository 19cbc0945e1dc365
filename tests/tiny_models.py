"""Tiny random models of the families that the documentation names, made on the spot.

`tiny(folder, family)` leaves in `folder` what a download leaves: config.json, tokenizer files and
model.safetensors, loadable by `AutoModelForCausalLM` and `AutoTokenizer`. Two layers, a context of
256, a byte-level BPE vocabulary of about 500: made in a fraction of a second, and the same bytes
for the same seed. They imitate their families where code could trip over it (special tokens, tied
weights, positions, projections, templates), and have learned nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Family = Literal["llama", "smollm2", "opt", "opt-proj", "qwen2"]
FAMILIES: tuple[Family, ...] = get_args(Family)

VOCABULARY = 512
CONTEXT = 256
SPREAD = 0.15
"""Of the weights. With the usual 0.02, logits are so flat that rounding decides greedy replies."""

CHATML = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_SENTENCES = (
    "The lighthouse on the north shore was built in 1874 by a company of twelve stonemasons.",
    "Who built the lighthouse? A company of stonemasons built it, and it took them three years.",
    "A model that reads every day should be able to say what it has read and where it read it.",
    "What is the capital of the island? The capital is the town beside the northern harbour.",
    "She asked a question, waited for the answer, and wrote both of them down in the notebook.",
    "In the winter the river freezes, and the people of the valley walk across it to the market.",
    "user system assistant: You are a helpful assistant. Hello! How can I help you today?",
)

# GPT-2's and Llama 3's ways of cutting text into words before the merges.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tiny(folder: Path, family: Family, seed: int = 0) -> Path:
    """Make a model of `family` in `folder` and return the folder.

    - llama: Llama 3.2 (base): grouped-query attention, scaled rotary positions, tied; begins with
      <|begin_of_text|>, has no padding token and no chat template
    - smollm2: SmolLM2-Instruct: Llama architecture, tied, a ChatML template
    - opt: OPT: learned positions, layer norm before, bos = eos = </s>, no chat template
    - opt-proj: as OPT-350m: layer norm after, embeddings half as wide and projected
    - qwen2: Qwen2.5-Instruct: biased attention, no bos, a ChatML template, two stop tokens
    """
    tokenizer = _tokenizer(family)
    config = _config(family, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _MODELS[family](config)
    model.generation_config = _generation_config(family, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_MODELS: dict[Family, type[PreTrainedModel]] = {
    "llama": LlamaForCausalLM,
    "smollm2": LlamaForCausalLM,
    "opt": OPTForCausalLM,
    "opt-proj": OPTForCausalLM,
    "qwen2": Qwen2ForCausalLM,
}


def _config(
    family: Family, tokenizer: PreTrainedTokenizerFast
) -> LlamaConfig | OPTConfig | Qwen2Config:
    common = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    if family.startswith("opt"):
        wide = family == "opt"
        return OPTConfig(
            **common,
            ffn_dim=128,
            word_embed_proj_dim=64 if wide else 32,
            do_layer_norm_before=wide,
            dropout=0.1,
            init_std=SPREAD,
        )
    common |= {"intermediate_size": 128, "num_key_value_heads": 2, "initializer_range": SPREAD}
    if family == "qwen2":
        # Qwen has no bos token, but its config names the end of text as one.
        common["bos_token_id"] = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        return Qwen2Config(**common, rms_norm_eps=1e-6)
    if family == "smollm2":
        rope: dict[str, object] = {"rope_type": "default", "rope_theta": 100_000.0}
    else:
        rope = {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": CONTEXT // 4,
        }
    return LlamaConfig(**common, rms_norm_eps=1e-5, rope_parameters=rope)


def _generation_config(family: Family, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    stops = tokenizer.eos_token_id
    if family == "qwen2":
        stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer(family: Family) -> PreTrainedTokenizerFast:
    if family == "llama":
        return _wrap(
            _train(
                _LLAMA3,
                last=[
                    "<|begin_of_text|>",
                    "<|end_of_text|>",
                    "<|start_header_id|>",
                    "<|end_header_id|>",
                    "<|eot_id|>",
                ],
            ),
            starts_with="<|begin_of_text|>",
            bos_token="<|begin_of_text|>",
            eos_token="<|end_of_text|>",
        )
    if family == "smollm2":
        return _wrap(
            _train(_GPT2, first=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
            template=CHATML,
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            unk_token="<|endoftext|>",
            pad_token="<|im_end|>",
        )
    if family == "qwen2":
        return _wrap(
            _train(_LLAMA3, last=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
            template=CHATML,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        )
    return _wrap(
        _train(_GPT2, first=["<s>", "<pad>", "</s>", "<unk>"]),
        starts_with="</s>",
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
    )


def _train(
    pattern: str, first: list[str] | None = None, last: list[str] | None = None
) -> Tokenizer:
    """A byte-level BPE with special tokens at the first ids (GPT-2) or at the last (Llama 3)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(last or []),
        special_tokens=first or [],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    if last:
        tokenizer.add_special_tokens(last)
    return tokenizer


def _wrap(
    tokenizer: Tokenizer, *, starts_with: str = "", template: str = "", **special: str
) -> PreTrainedTokenizerFast:
    if starts_with:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{starts_with} $A",
            pair=f"{starts_with} $A {starts_with} $B",
            special_tokens=[(starts_with, tokenizer.token_to_id(starts_with))],
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        **special,
    )
    if template:
        wrapped.chat_template = template
    return wrapped
