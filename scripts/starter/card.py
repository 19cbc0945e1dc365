"""The model card: what was recorded while training and what `benchmarks/starter.py` measured.

Every figure in the card comes from those two files; only the limits are prose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

HEADER = """---
license: cc-by-sa-4.0
language:
  - en
pipeline_tag: text-generation
library_name: transformers
tags:
  - llama
  - conversational
---

# Autodidact starter

A very small chat model, trained from scratch for Autodidact. It is here so that the program runs,
learns and answers where no other model can be had: with `model = "auto"`, it serves when the
Hugging Face Hub is out of reach and nothing is cached. It is also what the tests download.

It answers in a few words and stops. From a passage in its prompt it takes the right answer now and
then, and cites it; where the passages do not say, it mostly says "I don't know", too often also
where they do. It knows next to nothing. For conversation, use a larger model.
"""
LIMITS = """
## Limits

- English only. Do not rely on anything that it says about the world; it makes things up.
- No safety training of any kind.
- Its replies are short, because the questions it was trained on have short answers.
- It reads best where the question repeats words of the passage. It may say "I don't know" too
  often or too rarely: see the figures.
"""
USED = {
    "English Wikipedia": "text; by the learner's rules questions about it, closed book and with "
    "passages; openings",
    "Schema-Guided Dialogue": "chat",
    "ChatterBot": "chat",
    "OpenTriviaQA": "questions, all but 2,000 chosen by hash and those with the same words",
    "Self-Instruct": "chat",
    "TAT-QA": "questions with passages",
}


def write(record: dict[str, Any], measured: dict[str, Any], note: str = "") -> str:
    """The card in Markdown. `measured` compares an earlier model with the new one, the last; `note`
    goes under its table."""
    parts = [HEADER, _architecture(record), _training(record), _data(record)]
    parts += [_measured(measured), f"\n{note}" if note else "", LIMITS, _conversations(measured)]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def _architecture(record: dict[str, Any]) -> str:
    recipe = record["recipe"]
    rows = [
        ("Type", "Llama (`LlamaForCausalLM`), decoder only"),
        ("Parameters", f"{record['parameters']:,}, embeddings tied"),
        (
            "Layers",
            f"{recipe['layers']}, hidden size {recipe['hidden']}, feed-forward "
            f"{recipe['feed_forward']}",
        ),
        (
            "Attention",
            f"{recipe['heads']} heads of {recipe['head_size']}, {recipe['kv_heads']} key-value "
            f"head{'s' if recipe['kv_heads'] > 1 else ''}, rotary positions",
        ),
        (
            "Context",
            f"{recipe['context']:,} tokens; trained on rows of "
            + ", then ".join(f"{stage['length']:,}" for stage in recipe["stages"]),
        ),
        (
            "Tokenizer",
            f"byte-level BPE, vocabulary {recipe['vocabulary']:,}; numbers in pairs of digits",
        ),
        ("Weights", f"bfloat16 safetensors, {record['parameters'] * 2 / 1e6:.0f} MB"),
    ]
    return (
        "\n## Architecture\n\n"
        + _table(("", ""), rows)
        + "\nIts chat form follows ChatML: `<|im_start|>role`, a line break, the text, "
        "`<|im_end|>`.\nPassages go into the user's turn, numbered, before the question "
        "(`autodidact/chat/retrieval.py`).\n"
    )


def _training(record: dict[str, Any]) -> str:
    recipe = record["recipe"]
    cost = f"{record['tokens'] / 1e6:.1f} million tokens in {record['minutes']:.0f} minutes"
    rates = (
        f"Muon on the layers' matrices (peak rate {recipe['muon_rate']}), AdamW on embeddings and "
        f"norms ({recipe['adam_rate']}),\nlinear warm-up over the first {recipe['warmup']:.0%} "
        f"of the steps, linear decay over the last {recipe['decay']:.0%}"
    )
    return f"""
## Training

{cost} of wall time on {record["device"]}.
{rates};
bfloat16 with float32 copies in the optimizer, seed {recipe["seed"]}. Items are packed into rows;
attention stays within an item.

    python scripts/pretrain_starter.py train --data DATA --work WORK

![Nat a token while training](../../docs/starter.png)
"""


def _data(record: dict[str, Any]) -> str:
    sources = [
        (
            f"{source['name']}: {source['items']:,} {source['what']}",
            next((use for name, use in USED.items() if source["name"].startswith(name)), ""),
            source["licence"],
        )
        for source in record["sources"]
    ]
    stages = list(record["mix"])
    kinds = list(dict.fromkeys(kind for stage in stages for kind in record["mix"][stage]))
    totals = {stage: sum(record["mix"][stage].values()) for stage in stages}
    mix = [
        (kind, *(f"{record['mix'][s].get(kind, 0) / totals[s]:.0%}" for s in stages))
        for kind in kinds
    ]
    weights = ", ".join(
        f"{stage['prompt_weight']:g} in {stage['name']}" for stage in record["recipe"]["stages"]
    )
    return f"""
{_table(("Data", "Used as", "Licence"), sources)}
and some hundred exchanges of small talk about itself, written for the project. The texts belong to
their authors: the contributors to Wikipedia and to the corpora named above. The model is shared
under CC BY-SA 4.0.

Of each article the first {record["recipe"]["article_characters"]:,} characters are read. Shares
of the tokens, by stage:

{_table(("", *stages), mix)}
*recall* are questions about an article without its text, *reading* questions with passages, \
*about* its opening.
A token of a question or passage counts {weights} in the loss, text and replies 1.

Kept out of training: SQuAD's articles, 300 unseen articles, WikiText-2's validation and test
articles, 2,000 trivia questions.
"""


def _measured(measured: dict[str, Any]) -> str:
    names = ["draft", "this model"]
    rows: list[Sequence[str]] = []

    def row(what: str, values: Iterable[Any]) -> None:
        rows.append((what, *(str(value) for value in values)))

    row("Parameters", (f"{m['parameters']:,}" for m in measured["models"]))
    text, trivia, reading = measured["text"], measured["trivia"], measured["reading"]
    row("WikiText-2 validation, perplexity per word, detokenised",
        text["plain"]["perplexity per word"])  # fmt: skip
    row("… as it stands", text["as it stands"]["perplexity per word"])
    row(f"Trivia, closed book, four choices, {trivia['questions']:,} held-out questions; "
        "the draft was trained on them", trivia["right"])  # fmt: skip
    asked = f"SQuAD, {reading['questions']} questions with paragraph"
    row(f"{asked}: EM", reading["EM"])
    row(f"{asked}: F1", reading["F1"])
    row("… the paragraph cited", reading["cited"])
    row('… "I don\'t know" though it is there', reading["don't know"])
    row(f'"I don\'t know" where it is not, {reading["without answer"]} questions',
        reading["don't know, without answer"])  # fmt: skip
    row(f"The learner's {reading['library questions']} probes on library/ with their passage: EM",
        reading["library EM"])  # fmt: skip
    chat = measured["chat"]
    row(f"Replies that stop within 256 tokens, {chat['prompts']} prompts", chat["ended"])
    row("… and are well-formed", chat["well-formed"])
    for streams in ("1 stream", "8 streams"):
        row(f"Tokens a second, two cores, {streams} (range)",
            (f"{s['median']} ({s['lowest']}–{s['highest']})" for s in measured["speed"][streams]),
            )  # fmt: skip
    for minutes, cycles in measured.get("learning", {}).items():
        row(f"One cycle of {minutes} on library/: probes right", (c["taught_now"] for c in cycles))
        row("… before it", (c["taught_base"] for c in cycles))
        row(
            "… with the passages that the chat finds",
            (c["taught_now_with_passages"] for c in cycles),
        )
        row("… with them, before it", (c["taught_base_with_passages"] for c in cycles))
        row("… control documents", (c["control_now"] for c in cycles))
        row("… NLL of its own held-out text", (_rise(c, "general") for c in cycles))
        row("… NLL of WikiText-2", (_rise(c, "wikitext") for c in cycles))
    return (
        "\n## Measured, beside the draft\n\nThe draft is the model of 5.5 million parameters that "
        "was here before. `python benchmarks/starter.py --models DRAFT THIS --out DIR`;\n"
        "95 % intervals of Wilson; speed is the median of "
        f"{measured['speed']['rounds']} rounds.\n\n" + _table(("", *names), rows)
    )


def _rise(cycle: dict[str, Any], name: str) -> str:
    base, now = cycle[f"{name}_base"], cycle[f"{name}_now"]
    return f"{base:.3f} → {now:.3f} ({now / base - 1:+.1%})"


def _conversations(measured: dict[str, Any]) -> str:
    talks = measured["chat"]["conversations"][-1]
    told = [
        "\n## Conversations\n\nAll that were asked for, at the page's sampling with the "
        "conversation's number as seed. Some of the openings are in\nthe small talk that it was "
        "trained on.\n"
    ]
    for number, turns in enumerate(talks, 1):
        lines = [f"{number}."]
        lines += [
            f"    {role}: {json.dumps(text, ensure_ascii=False)[1:-1]}" for role, text in turns
        ]
        told.append("\n".join(lines) + "\n")
    return "\n".join(told)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    ruler = "|" + "---|" * len(head)
    return "\n".join([line(head), ruler, *map(line, rows)]) + "\n"
