"""No pickle is ever loaded: not by learner, study or server, nor where weights come as a pickle.

Every Python process of a run gets an audit hook before its first import, through `sitecustomize`:
it notes the process and each class that an unpickler looks up (`pickle.find_class`). torch's
`weights_only=True` reads tensors with an unpickler of its own, which looks up nothing outside a
short list and raises no such event; `weights_only=False` does, as is checked here.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from autodidact import checkpoints
from autodidact.settings import PROJECT
from tests.tiny_models import tiny
from tests.versions import save_adapter
from tests.workplace import Workplace, child_environment, ended, wait_for

pytest_plugins = ["tests.core_fixtures"]
pytestmark = pytest.mark.slow
HOOK = """
import os, sys
def note(*words):
    with open(os.environ["PICKLE_NOTES"], "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")
def heard(event, args):
    if event == "pickle.find_class":
        note("pickle", os.getpid(), *args)
sys.addaudithook(heard)
note("process", os.getpid(), *sys.orig_argv[1:3])
"""
OURS = sorted([*(PROJECT / "autodidact").rglob("*.py"), *PROJECT.glob("*.py")])


class Notes:
    """What the processes under the hook did."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pickle-notes"
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        hook = os.pathsep.join([str(folder / "hook"), str(PROJECT)])
        self.environment = {
            **child_environment(), "PYTHONPATH": hook, "PICKLE_NOTES": str(self.path)
        }  # fmt: skip

    def _rows(self, kind: str) -> list[str]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [line.split(" ", 2)[2] for line in lines if line.startswith(kind)]

    def processes(self) -> str:
        return "\n".join(self._rows("process"))

    def unpickled(self) -> list[str]:
        return self._rows("pickle")

    def run(self, code: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=self.environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def start(place: Workplace, notes: Notes, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        place.command(*arguments), cwd=place.folder, env=notes.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_the_hook_hears_a_pickle(notes: Notes, tmp_path: Path) -> None:
    """Python's own, and torch's where it is told to trust; not torch's restricted one."""
    code = (
        "import pickle, sys, torch, collections\n"
        "torch.save(collections.OrderedDict(a=torch.ones(2)), sys.argv[1])\n"
        "torch.load(sys.argv[1], weights_only=sys.argv[2] == 'only')\n"
        "if sys.argv[2] == 'pickle': pickle.loads(pickle.dumps(pickle.PickleError))\n"
    )
    for how, heard in (("only", False), ("pickle", True), ("trusting", True)):
        notes.path.unlink(missing_ok=True)
        done = notes.run(code, tmp_path / "weights.bin", how)
        assert done.returncode == 0 or how == "pickle", done.stderr
        assert bool(notes.unpickled()) == heard, how


def test_learning_publishing_and_answering_load_no_pickle(
    workplace: Workplace, notes: Notes
) -> None:
    code, out = ended(start(workplace, notes, "web_learner.py", "--once", "--plain"), 240)
    assert code == 0, out
    assert "cycle 1" in out
    assert "autodidact.learning.study" in notes.processes(), "the study ran under the hook"
    if not checkpoints.current(workplace.home):
        publish_adapter(workplace)
    live = checkpoints.current(workplace.home)
    server = start(workplace, notes, "server.py")
    assert server.stdout is not None
    said = server.stdout
    try:
        address = wait_for(
            lambda: re.search(r"open (http://[\d.:]+)", said.readline()), 120, "the address"
        )[1]
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            wait_for(lambda: client.get("/health").json()["version"] == live, 120, "the version")
            answer = client.post("/chat", json={"message": "What is it?", "max_length": 8})
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Model-Version"] == str(live) != "0"
    assert "server.py" in notes.processes()
    assert notes.unpickled() == []


def publish_adapter(place: Workplace) -> None:
    """Where the gate refused what a random model learned, an adapter all the same."""
    import json
    import shutil

    from autodidact.models import loading

    base = json.loads((place.home / "base.json").read_text())
    staged = checkpoints.staging(place.home, 7) / "adapter"
    shutil.copytree(
        save_adapter(loading.load(Path(base["path"]), 1), place.folder / "made"), staged
    )
    (staged / checkpoints.REPORT).write_text("{}")
    about = {"name": base["name"], "revision": "", "sha256": base["sha256"]}
    checkpoints.publish(place.home, staged, 7, {"parent": None, "base": about, "report": {}})


def pickled(folder: Path) -> Path:
    """A tiny model whose weights are a pickle, as older ones are published."""
    import torch
    from transformers import OPTForCausalLM

    tiny(folder, "opt")
    weights = OPTForCausalLM.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


CONVERT = """
import sys
from pathlib import Path
from autodidact.models import files
home = Path(sys.argv[2])
print(files.loadable("opt", Path(sys.argv[1]), "", home, print))
"""


def test_weights_that_come_as_a_pickle_are_converted_without_trusting_it(
    notes: Notes, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    done = notes.run(CONVERT, pickled(tmp_path / "opt"), tmp_path / "home")
    assert done.returncode == 0, done.stderr
    made = Path(done.stdout.splitlines()[-1])
    assert (made / "model.safetensors").is_file()
    assert len(notes.processes().splitlines()) == 2, "the child converted, under the hook"
    assert notes.unpickled() == []


# What the source says ---------------------------------------------------------------------------


def calls(path: Path) -> list[ast.Call]:
    """All calls in a file, also in the programs that it holds as text."""
    found = []
    trees: list[ast.AST] = [ast.parse(path.read_text())]
    for node in ast.walk(trees[0]):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "import" in node.value
        ):
            try:
                trees.append(ast.parse(node.value))
            except (SyntaxError, ValueError):
                continue
    for tree in trees:
        found += [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found


def trusting(call: ast.Call) -> bool:
    """Whether a call unpickles, or lets something else do so."""
    name = ast.unparse(call.func)
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if given.get("weights_only", "True") != "True" or given.get("allow_pickle", "False") != "False":
        return True
    if name == "torch.load":
        return "weights_only" not in given
    if name.endswith(".from_pretrained") and given.get("use_safetensors") == "False":
        return given.get("weights_only") != "True"
    return name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_call_trusts_a_pickle(path: Path) -> None:
    assert [ast.unparse(call) for call in calls(path) if trusting(call)] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(data)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(path, use_safetensors=False)",
        'run("""\nimport torch\ntorch.load(path)\n""")',
    ],
)
def test_a_call_that_does_is_found(line: str, tmp_path: Path, parsed: Callable[..., Any]) -> None:
    assert parsed(tmp_path / "module.py", line)
    assert not parsed(tmp_path / "module.py", "torch.load(path, weights_only=True)")


@pytest.fixture
def parsed() -> Callable[[Path, str], list[ast.Call]]:
    def parse(path: Path, line: str) -> list[ast.Call]:
        path.write_text(line)
        return [call for call in calls(path) if trusting(call)]

    return parse
