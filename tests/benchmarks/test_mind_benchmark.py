"""The benchmark of what the chat lost: a whole run on a tiny base, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autodidact import checkpoints
from autodidact.evaluation.well_formed import ChatResult
from autodidact.models import bases
from autodidact.models.loading import LoadedBase
from autodidact.store.ledger import LearnerStore
from autodidact.training.anchor_set import AnchorPrompt
from benchmarks import mind
from benchmarks.mind import Compared, summary
from tests.ledgers import add_document, run_cycle
from tests.versions import manifest_for, save_adapter

pytest_plugins = ["tests.core_fixtures"]


def compared(name: str, base: str, new: str, worse: str = "") -> Compared:
    asked = AnchorPrompt(name, "identity" if name < "c" else "knowledge", f"{name}?", ())
    return Compared(asked, ChatResult(base, True, True), ChatResult(new, True, True), worse)


def test_the_summary_counts_by_group_and_lists_what_is_worse() -> None:
    rows = [
        compared("a", "I am a model.", "I am a model."),
        compared("b", "I am a model.", "Maren Dace", "leak: maren dace; short: 2 words"),
        compared("c", "Paris.", "It is Paris."),
    ]
    told = summary(rows)
    table = {words[0]: words[1:4] for line in told.splitlines() if len(words := line.split()) == 9}
    assert table == {
        "identity": ["1", "0", "1"], "knowledge": ["0", "1", "0"], "all": ["1", "1", "1"],
    }  # fmt: skip
    assert "6.1% to 79.2% of 3" in told, "Wilson's interval of 1 in 3"
    assert "worse by leak: 1" in told
    assert "worse by answer: 0" in told
    assert told.endswith(
        "b: b?\n  leak: maren dace; short: 2 words\n  base: 'I am a model.'\n  now:  'Maren Dace'"
    )
    assert "c?" not in told


def test_the_newest_version_of_a_home_is_compared_with_its_base(
    home: Path,
    tmp_path: Path,
    tiny_folder: Callable[[str], Path],
    llama: LoadedBase,
    one_thread: None,
) -> None:
    model = str(tiny_folder("llama"))
    with pytest.raises(SystemExit, match="has no version yet"):
        mind.run(home, model)
    found = bases.resolve(model, "", home, lambda line: None)
    store = LearnerStore(home / "learner.db")
    document = add_document(store, "mill")
    run_cycle(store, 1, [document], results={"taught": {document: (1, 1)}})
    store.close()
    assert mind.taught(home) == ["A"]
    staged = save_adapter(llama, checkpoints.staging(home, 1) / "adapter")
    (staged / checkpoints.REPORT).write_text(json.dumps({"cycle": 1}))
    manifest = manifest_for(None)
    manifest["base"]["sha256"] = found.sha256
    checkpoints.publish(home, staged, 1, manifest)
    told = mind.run(home, model)
    assert told.startswith(f"version 1 of {home}\n")
    [total] = [line for line in told.splitlines() if line.startswith("all ")]
    same, changed, worse = (int(word) for word in total.split()[1:4])
    assert changed > 0, "this adapter changes what the base says"
    assert same + changed + worse == 100
    assert told.count("\n  base: ") == worse
