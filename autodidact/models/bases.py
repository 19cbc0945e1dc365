"""The base model: which one, from where, and the promise that it stays the same.

`resolve` turns the setting `model` into a folder that transformers can load (config.json,
tokenizer, *.safetensors) and fixes the choice in `home/base.json`: adapters belong to the base
they were trained on. Learner and server may call it at the same time; whoever holds
`home/base.lock` decides, the other one reads.

A model is a Hub name (fetched into Hugging Face's own cache), a folder, a GGUF file (on disk, alone
in a folder, or `owner/name:file.gguf` on the Hub), or "auto", which goes by the machine. Only
"auto", with the Hub out of reach and nothing cached, falls back: to the weights that were installed
as a `package`, and without them to the bundled `models/starter`. Anything named explicitly succeeds
or ends in one clear error, and so does a package that is damaged.

On a CPU a model in floats may be rounded once to numbers of eight bits (`rounding`); that, too, is
fixed at the first call. Weights that come only as pickles (.bin) are converted once, by a child
process with `weights_only=True`, into `home/base-model/`, and so is a GGUF file (`gguf`). This
process unpickles nothing, never imports torch. Weights are fetched by plain HTTPS with ranges and
checked against their sha256, because huggingface_hub 2 starts an interrupted file from zero and
throws away what has arrived.

Left to others: loading (`loading`), the licence of what is downloaded (the user), and remote code,
which is neither fetched nor run.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autodidact.errors import BaseMismatch, HubUnreachable, ModelError, ResourceError, SettingError
from autodidact.home import lock, write_atomic
from autodidact.models import gguf, package, rounding
from autodidact.models.download import NoAnswer, file_from_hub, from_hub
from autodidact.models.files import (
    NO_SPACE,
    FileState,
    brief,
    combine,
    hash_files,
    identity_files,
    last_line,
    loadable,
)
from autodidact.settings import PROJECT

Log = Callable[[str], None]
Origin = Literal["hub", "folder", "package", "bundled"]
_AskGpu = Callable[[], tuple[float | None, str]]

_WAITING = "waiting for another process that is fetching the base model"
STARTER = PROJECT / "models" / "starter"
GRAPHS = "graphs"
"""The folder of the home in which graphs of the base are kept (`engine.graph_files`)."""
SMALL, MEDIUM, LARGE = (f"HuggingFaceTB/SmolLM2-{n}-Instruct" for n in ("135M", "360M", "1.7B"))


@dataclass(frozen=True)
class Base:
    """A base model, ready to load. `sha256` is one hash over the names and contents of config.json,
    tokenizer files, chat template and weights; `revision` is the commit of a Hub snapshot or ""."""

    name: str
    path: Path
    origin: Origin
    revision: str
    sha256: str
    reason: str

    @property
    def fallback(self) -> bool:
        """True where the starter serves only because no other model was to be had."""
        return self.origin == "bundled"


class _Record(BaseModel):
    """What base.json holds. `requested` is the branch or tag that `revision` came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    path: Path
    origin: Origin
    revision: str
    requested: str
    sha256: str
    reason: str
    files: dict[str, FileState]
    rounded: bool = False


def resolve(
    model: str, revision: str, home: Path, log: Log, rounded: rounding.Rounding = "none"
) -> Base:
    """The base of this `home`: decided at the first call, the same one ever after.

    `model` is "auto", a Hub name, a folder or a GGUF file; `revision` is a branch, tag or commit of
    a Hub model; `rounded` is whether floats become numbers of eight bits. Raises ModelError (or its
    HubUnreachable, BaseMismatch), ResourceError or SettingError.
    """
    if revision and (model == "auto" or _is_local(model)):
        raise SettingError(f"revision: {revision} needs a model on the Hub, but model is {model}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with lock(home, "base", math.inf, lambda: log(_WAITING)):
            fixed = _read(home / "base.json")
            if fixed is None:
                record = _decide(model, revision, home, log, rounded)
            else:
                record = _reopen(fixed, model, revision, home, log)
            if record != fixed:
                text = record.model_dump_json(indent=2) + "\n"
                write_atomic(home / "base.json", text.encode())
    except OSError as error:
        if error.errno in NO_SPACE:
            raise ResourceError(f"no space left for the base model in {home}") from error
        raise ModelError(f"the base model cannot be read or kept: {brief(error)}") from error
    reason = record.reason if fixed is None else f"{record.reason} (fixed in base.json)"
    if record.origin == "bundled" and package.find():
        reason += f"; {package.NAME} is installed now: another home would take it"
    log(f"base model {record.name}: {reason}")
    return Base(record.name, record.path, record.origin, record.revision, record.sha256, reason)


def choose(gpu_gb: float | None) -> tuple[str, str]:
    """What "auto" takes on a machine with this much GPU memory (None: no GPU), and why."""
    if gpu_gb is None:
        return SMALL, "no GPU"
    if gpu_gb >= 16:
        return LARGE, f"a GPU with {gpu_gb:g} GB, from 16"
    if gpu_gb >= 6:
        return MEDIUM, f"a GPU with {gpu_gb:g} GB, from 6 and under 16"
    return SMALL, f"a GPU with {gpu_gb:g} GB, under 6"


# --- the first start, and every later one ---------------------------------------------------------


def _decide(model: str, revision: str, home: Path, log: Log, wanted: rounding.Rounding) -> _Record:
    name, origin, reason = model, "hub", "named in the settings"
    gpu = cache(lambda: gpu_memory_gb())
    if model == "auto":
        name, origin, source, reason = _automatic(gpu, log)
    elif _is_local(model):
        source = Path(model).expanduser().resolve()
        name, origin = str(source), "folder"
    else:
        source = _named(model, revision, log)
    commit = (source.parent if source.is_file() else source).name if origin == "hub" else ""
    path = _prepared(name, source, commit, home, log)
    rounded = origin in ("hub", "folder") and not gguf.find(source) and _rounds(path, wanted, gpu)
    if rounded:
        path = rounding.rounded(name, path, commit, home, log)
        reason += "; its weights rounded to eight bits, by which a CPU replies faster"
    files = hash_files(path, identity_files(path), {})
    return _Record.model_validate(
        {
            "name": name,
            "path": path,
            "origin": origin,
            "revision": commit,
            "requested": revision,
            "sha256": combine(files),
            "reason": reason,
            "files": files,
            "rounded": rounded,
        }
    )


def _rounds(folder: Path, wanted: rounding.Rounding, gpu: _AskGpu) -> bool:
    if wanted != "auto":
        return wanted == "8bit"
    return rounding.worth(folder) and gpu()[0] is None


def _prepared(name: str, source: Path, commit: str, home: Path, log: Log) -> Path:
    """The folder to load for what a model's name led to."""
    if file := gguf.find(source):
        return gguf.converted(name, file, home, log)
    return loadable(name, source, commit, home, log)


def _automatic(gpu: _AskGpu, log: Log) -> tuple[str, Origin, Path, str]:
    gpu_gb, problem = gpu()
    name, reason = choose(gpu_gb)
    if problem:
        reason = f"the GPU could not be asked ({problem}), so as without one"
    log(f"model auto: {name}: {reason}")
    try:
        return name, "hub", from_hub(name, "", log), reason
    except NoAnswer as silence:
        away = f"the Hugging Face Hub was out of reach ({silence}) and {name} not cached"
        stays = "adapters belong to their base, so it stays when the Hub is back"
        if file := package.find():
            why = f"{away}, so what the package {package.PACKAGE} holds; {stays}"
            return package.NAME, "package", package.checked(file), why
        why = f"{away}; {stays}; for {package.NAME}: {package.INSTALL}, and set another home"
        return "starter (bundled)", "bundled", STARTER, why


def _named(name: str, revision: str, log: Log) -> Path:
    repository, _, file = name.partition(":")
    try:
        if file:
            return file_from_hub(repository, file, revision, log)
        return from_hub(name, revision, log)
    except NoAnswer as silence:
        raise HubUnreachable(
            f"the Hugging Face Hub is out of reach ({silence}) and {name} is not cached; "
            "connect once to download it, or give a folder"
        ) from silence


def _reopen(fixed: _Record, model: str, revision: str, home: Path, log: Log) -> _Record:
    record = _confirmed(fixed, model, revision, home)
    path = record.path
    if not all((path / name).is_file() for name in record.files):
        path = _restored(record, home, log)
    # Other programs may complete a snapshot in the cache with files that it lacked when we took
    # it; a folder is the user's, and a new chat template in it is a change of the base.
    names = record.files.keys() if record.origin == "hub" else identity_files(path)
    files = hash_files(path, names, record.files)
    if combine(files) != record.sha256:
        before = {name: state.sha256 for name, state in record.files.items()}
        after = {name: state.sha256 for name, state in files.items()}
        changed = sorted({name for name, _ in before.items() ^ after.items()})
        raise BaseMismatch(
            f"{', '.join(changed)} in {path} changed since it was fixed as the base: restore it; "
            + _start_over(home)
        )
    return record.model_copy(update={"path": path, "files": files})


def _confirmed(record: _Record, model: str, revision: str, home: Path) -> _Record:
    """The record, if it is what the settings ask for. Raises BaseMismatch."""
    if model == "auto":
        return record
    if _is_local(model):
        source = Path(model).expanduser().resolve()
        wanted = str(source)
        same = record.origin == "folder" and record.name == wanted
        # The same files elsewhere (the project moved, the starter is now named) are the same base.
        if not same and (folder := _identical(record, source, home)):
            new = {"name": wanted, "path": folder, "origin": "folder", "revision": ""}
            return record.model_copy(update=new | {"reason": "named in the settings"})
    else:
        wanted = f"{model} at {revision}" if revision else model
        same = (record.origin, record.name) == ("hub", model) and (
            revision in ("", record.requested)
            or (len(revision) >= 7 and record.revision.startswith(revision))
        )
    if same:
        return record
    at = f" at {record.requested or record.revision[:12]}" if revision and record.revision else ""
    raise BaseMismatch(
        f"{home / 'base.json'} fixes {record.name}{at}, but the settings name {wanted}: adapters "
        f"cannot change their base; {_start_over(home)}"
    )


def _identical(record: _Record, source: Path, home: Path) -> Path | None:
    """The folder to load for this source, if what is in it is the very base of the record."""
    if file := gguf.find(source):
        folder = gguf.folder_for(file, home)
        return folder if folder == record.path else None
    if record.rounded:
        floats = loadable(str(source), source, "", home, lambda line: None)
        return record.path if record.path.name.endswith(rounding.ending(floats, "")) else None
    same = combine(hash_files(source, identity_files(source), {})) == record.sha256
    return source if same else None


def _restored(record: _Record, home: Path, log: Log) -> Path:
    """The folder of a fixed base whose files are no longer where they were."""
    if record.origin == "bundled":
        source = STARTER
    elif record.origin == "hub":
        source = _named(record.name, record.revision, log)
    elif record.origin == "package":
        found = package.find()
        if found is None:
            raise ModelError(
                f"{record.name} is neither in {home / 'base-model'} nor installed any more: "
                f"{package.INSTALL}; {_start_over(home)}"
            )
        source = package.checked(found)
    else:
        source = Path(record.name)
        if not source.exists():
            what = "file" if source.suffix == gguf.SUFFIX else "folder"
            raise ModelError(
                f"the base model's {what} {source} has vanished: bring it back; {_start_over(home)}"
            )
    path = _prepared(record.name, source, record.revision, home, log)
    if record.rounded:
        path = rounding.rounded(record.name, path, record.revision, home, log)
    return path


def _start_over(home: Path) -> str:
    return f"to start over, set another home or move the contents of {home} away"


def _is_local(model: str) -> bool:
    """Whether a folder or a GGUF file on disk is meant. Raises ModelError where there is none."""
    path = Path(model).expanduser()
    is_file = path.suffix == gguf.SUFFIX and ":" not in model
    if path.is_dir() or (is_file and path.is_file()):
        return True
    if is_file:
        raise ModelError(f"no such model file: {model}")
    if model.startswith(("/", "~", "./", "../")):
        raise ModelError(f"no such model folder: {model}")
    return False


# --- the machine ----------------------------------------------------------------------------------

_ASK_GPU = """
import json, torch
size = None
if torch.cuda.is_available():
    size = torch.cuda.get_device_properties(0).total_memory
elif torch.backends.mps.is_available():
    size = torch.mps.recommended_max_memory()
print(json.dumps(size))
"""


def gpu_memory_gb(python: str = sys.executable) -> tuple[float | None, str]:
    """Memory of the first GPU in GB (None: there is none), and what went wrong in asking ("").

    A child process asks, so that torch stays out of this one. Rounded, because drivers keep a part
    for themselves: a card sold with 16 GB shows 15.6.
    """
    # -P: a file in the working folder must not shadow a module of the libraries.
    command = [python, "-P", "-c", _ASK_GPU]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=120
        )
        if done.returncode:
            return None, last_line(done.stderr) or f"exit code {done.returncode}"
        size = json.loads(last_line(done.stdout))
        return (None if size is None else float(round(size / 1e9))), ""
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired) as error:
        return None, brief(error)


# --- base.json ------------------------------------------------------------------------------------


def _read(path: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ModelError(f"{path} is damaged: restore it; {_start_over(path.parent)}") from None
