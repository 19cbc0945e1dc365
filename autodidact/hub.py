"""The base model: which one, from where, and the promise that it stays the same.

`resolve` turns the setting `model` into a folder that transformers can load (config.json,
tokenizer, *.safetensors) and fixes the choice in `home/base.json`: adapters belong to the base
they were trained on. Learner and server may call it at the same time; whoever holds
`home/base.lock` decides, the other one reads.

A model is a Hub name (fetched into Hugging Face's own cache), a folder, or "auto", which goes by
the machine. Only "auto", with the Hub out of reach and nothing cached, falls back to the bundled
`models/starter`; anything named explicitly succeeds or ends in one clear error.

Weights that come only as pickles (.bin) are converted once, by a child process with
`weights_only=True`, into `home/base-model/`. This process unpickles nothing, never imports torch.
Weights are fetched by plain HTTPS with ranges and checked against their sha256, because
huggingface_hub 2 starts an interrupted file from zero and throws away what has arrived.

Left to others: loading (`model`), the licence of what is downloaded (the user), and remote code,
which is neither fetched nor run.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from autodidact.errors import BaseMismatch, HubUnreachable, ModelError, ResourceError, SettingError
from autodidact.settings import PROJECT

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

Log = Callable[[str], None]
Origin = Literal["hub", "folder", "bundled"]

STARTER = PROJECT / "models" / "starter"
SMALL, MEDIUM, LARGE = (f"HuggingFaceTB/SmolLM2-{n}-Instruct" for n in ("135M", "360M", "1.7B"))

# What makes a base the one it is, beside its weights: these decide what goes in and comes out.
_VOCABULARY = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.*")
_IDENTITY = (
    *_VOCABULARY,
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.json",
    "*.jinja",
)
_SMALL_FILES = (*_IDENTITY, "generation_config.json")
_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


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
        """True where the starter serves only because the Hub was out of reach."""
        return self.origin == "bundled"


class _FileState(BaseModel):
    """A file's hash, with the size and time it was taken at: unchanged means not read again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    mtime_ns: int
    sha256: str


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
    files: dict[str, _FileState]


class _NoAnswer(Exception):
    """The Hub is out of reach and the model is not cached; `str` says why out of reach."""


def resolve(model: str, revision: str, home: Path, log: Log) -> Base:
    """The base of this `home`: decided at the first call, the same one ever after.

    `model` is "auto", a Hub name or a folder; `revision` is a branch, tag or commit of a Hub model.
    Raises ModelError (or its HubUnreachable, BaseMismatch), ResourceError or SettingError.
    """
    if revision and (model == "auto" or _is_folder(model)):
        raise SettingError(f"revision: {revision} needs a model on the Hub, but model is {model}")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "base.lock", log):
            fixed = _read(home / "base.json")
            if fixed is None:
                record = _decide(model, revision, home, log)
            else:
                record = _reopen(fixed, model, revision, home, log)
            if record != fixed:
                _write(home / "base.json", record)
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(f"no space left for the base model in {home}") from error
        raise ModelError(f"the base model cannot be read or kept: {_brief(error)}") from error
    reason = record.reason if fixed is None else f"{record.reason} (fixed in base.json)"
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


def _decide(model: str, revision: str, home: Path, log: Log) -> _Record:
    name, origin, reason = model, "hub", "named in the settings"
    if model == "auto":
        name, origin, source, reason = _automatic(log)
    elif _is_folder(model):
        source = Path(model).expanduser().resolve()
        name, origin = str(source), "folder"
    else:
        source = _named(model, revision, log)
    commit = source.name if origin == "hub" else ""
    path = _loadable(name, source, commit, home, log)
    files = _hash_files(path, _identity(path), {})
    return _Record.model_validate(
        {
            "name": name,
            "path": path,
            "origin": origin,
            "revision": commit,
            "requested": revision,
            "sha256": _combine(files),
            "reason": reason,
            "files": files,
        }
    )


def _automatic(log: Log) -> tuple[str, Origin, Path, str]:
    gpu_gb, problem = gpu_memory_gb()
    name, reason = choose(gpu_gb)
    if problem:
        reason = f"the GPU could not be asked ({problem}), so as without one"
    log(f"model auto: {name}: {reason}")
    try:
        return name, "hub", _from_hub(name, "", log), reason
    except _NoAnswer as silence:
        why = (
            f"the Hugging Face Hub was out of reach ({silence}) and {name} not cached; adapters "
            f"belong to their base, so it stays when the Hub is back; for {name} set another home"
        )
        return "starter (bundled)", "bundled", STARTER, why


def _named(name: str, revision: str, log: Log) -> Path:
    try:
        return _from_hub(name, revision, log)
    except _NoAnswer as silence:
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
    names = record.files.keys() if record.origin == "hub" else _identity(path)
    files = _hash_files(path, names, record.files)
    if _combine(files) != record.sha256:
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
    if _is_folder(model):
        folder = Path(model).expanduser().resolve()
        wanted = str(folder)
        same = record.origin == "folder" and record.name == wanted
        # The same files elsewhere (the project moved, the starter is now named) are the same base.
        if not same and _combine(_hash_files(folder, _identity(folder), {})) == record.sha256:
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


def _restored(record: _Record, home: Path, log: Log) -> Path:
    """The folder of a fixed base whose files are no longer where they were."""
    if record.origin == "bundled":
        source = STARTER
    elif record.origin == "hub":
        source = _named(record.name, record.revision, log)
    else:
        source = Path(record.name)
        if not source.is_dir():
            raise ModelError(
                f"the base model's folder {source} has vanished: bring it back; {_start_over(home)}"
            )
    return _loadable(record.name, source, record.revision, home, log)


def _start_over(home: Path) -> str:
    return f"to start over, set another home or move the contents of {home} away"


def _is_folder(model: str) -> bool:
    if Path(model).expanduser().is_dir():
        return True
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            return None, _last_line(done.stderr) or f"exit code {done.returncode}"
        size = json.loads(_last_line(done.stdout))
        return (None if size is None else float(round(size / 1e9))), ""
    except (OSError, ValueError, TypeError, subprocess.TimeoutExpired) as error:
        return None, _brief(error)


# --- the Hub --------------------------------------------------------------------------------------


def _from_hub(name: str, revision: str, log: Log) -> Path:
    """The snapshot's folder, named by its commit: fetched, or cached where the Hub is out of reach.
    Raises _NoAnswer, ModelError or ResourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with _quiet():
            return _download(name, revision, log)
    except _NoAnswer as silence:
        try:
            folder = Path(
                snapshot_download(
                    name,
                    revision=revision or None,
                    allow_patterns="config.json",
                    local_files_only=True,
                )
            )
            _identity(folder)  # an interrupted download leaves a snapshot without its weights
        except (LocalEntryNotFoundError, ModelError):
            raise silence from None
        log(f"the Hugging Face Hub is out of reach ({silence}): using {name} from the cache")
        return folder


def _download(name: str, revision: str, log: Log) -> Path:
    from huggingface_hub import snapshot_download

    info = _ask(name, revision)
    if "config.json" not in _siblings(info):
        raise ModelError(f"{name} is no transformers model: it has no config.json")
    with _download_errors(name, revision):
        # By the name, not the commit: this records what "main" means, for a start without network.
        small = [*_SMALL_FILES, _SAFE[1], _PICKLED[1]]
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=small))
        if folder.name != info.sha:  # the branch has moved on since we asked
            info = _ask(name, folder.name)
        _check_config(name, folder)
        _fetch_weights(name, info, folder, log)
    return folder


def _ask(name: str, revision: str) -> ModelInfo:
    """What the Hub says of the model. Raises _NoAnswer within seconds if it says nothing."""
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    limit_s = constants.HF_HUB_ETAG_TIMEOUT
    answers: queue.SimpleQueue[ModelInfo | Exception] = queue.SimpleQueue()

    def ask() -> None:
        api, revision_ = HfApi(), revision or None
        try:
            answers.put(
                api.model_info(name, revision=revision_, files_metadata=True, timeout=limit_s)
            )
        except Exception as error:
            answers.put(error)

    # In a thread, because no timeout of the client bounds it: name resolution has none, and each
    # of the Hub's many addresses is tried for the full time.
    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        raise _NoAnswer(f"no answer within {limit_s} s") from None
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, HFValidationError):
        raise ModelError(f"{name} is neither a folder nor a Hub name like owner/model") from answer
    refusal = _refusal(answer, name, revision)
    if refusal:
        raise refusal from answer
    # The last three: something answers that is not the Hub, such as the login page of a network.
    silent = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError, TypeError)
    if isinstance(answer, silent):
        raise _NoAnswer(_brief(answer)) from answer
    raise answer


def _fetch_weights(name: str, info: ModelInfo, folder: Path, log: Log) -> None:
    from huggingface_hub import constants, snapshot_download

    siblings = _siblings(info)
    missing = [file for file in _weights(siblings, folder) if not (folder / file).is_file()]
    if not missing:
        return
    blobs = folder.parents[1] / "blobs"
    total = sum(siblings[file][0] for file in missing)
    arrived = sum(_size(_partial(blobs, siblings[file][1])) for file in missing)
    free = shutil.disk_usage(folder).free
    if total - arrived > free:
        raise ResourceError(
            f"need {(total - arrived) / 2**30:.1f} GiB for {name}, have {free / 2**30:.1f} GiB in "
            f"{constants.HF_HUB_CACHE}"
        )
    rest = f", {arrived / 1e6:,.0f} of them here already" if arrived else ""
    log(f"downloading {name} from {constants.ENDPOINT}: {total / 1e6:,.0f} MB{rest}")
    started = time.monotonic()
    for file in missing:
        size, sha256 = siblings[file]
        if sha256:
            _fetch(name, folder.name, file, size, sha256, blobs)
    # Links the blobs into the snapshot, and fetches what is too small to be kept by its sha256.
    snapshot_download(name, revision=folder.name, allow_patterns=missing)
    log(f"downloaded {name} in {time.monotonic() - started:.0f} s")


def _fetch(name: str, commit: str, file: str, size: int, sha256: str, blobs: Path) -> None:
    """Bring one file into the cache under its hash, going on where an earlier attempt stopped."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    blob, partial = blobs / sha256, _partial(blobs, sha256)
    with partial.open("ab") as out:
        fcntl.flock(out, fcntl.LOCK_EX)  # another home may be fetching the same model
        if blob.exists():
            return
        if out.tell() > size:
            out.truncate(0)
        http_get(
            hf_hub_url(name, file, revision=commit),
            out,
            resume_size=out.seek(0, os.SEEK_END),
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=file,
        )
        out.flush()
        os.fsync(out.fileno())
        if _sha256(partial) != sha256:
            partial.unlink()
            raise ModelError(f"{file} of {name} arrived damaged (sha256 differs): start again")
        partial.replace(blob)


def _partial(blobs: Path, sha256: str) -> Path:
    return blobs / f"{sha256}.autodidact.incomplete"


@contextmanager
def _download_errors(name: str, revision: str) -> Iterator[None]:
    import httpx2
    from huggingface_hub import constants

    try:
        yield
    except (httpx2.HTTPError, OSError) as error:
        if getattr(error, "errno", None) in _NO_SPACE:
            raise ResourceError(f"no space left for {name} in {constants.HF_HUB_CACHE}") from error
        refusal = _refusal(error, name, revision)
        if refusal:
            raise refusal from error
        raise ModelError(
            f"the download of {name} was interrupted ({_brief(error)}): what has arrived is kept, "
            "and the next start resumes it"
        ) from error


def _refusal(error: BaseException | None, name: str, revision: str) -> ModelError | None:
    """The Hub's own no, found in the chain of causes; None where it did not answer at all."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__ or error.__context__
    # Whatever else answers on the way (a gateway, a filter) is not the Hub, and no answer of it.
    if error is None or not {"x-error-code", "x-error-message"} & error.response.headers.keys():
        return None
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{name} has no revision {revision or 'main'} on the Hub")
    if isinstance(error, GatedRepoError):
        return ModelError(f"{name} is gated: accept its licence on its Hub page and set HF_TOKEN")
    said = (error.server_message or f"HTTP {status}").splitlines()[0]
    if status == 403 or (status == 401 and "credentials" in said):
        return ModelError(f"the Hub gives no access to {name} ({said}): check HF_TOKEN")
    if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
        # Asked without a token, the Hub says 401 so as not to tell whether a private model exists.
        private = ", set HF_TOKEN if it is private" if status == 401 else ""
        return ModelError(
            f"no such model on the Hub: {name}; check the spelling{private}, or give a folder"
        )
    if status in (408, 429) or status >= 500:
        return None
    return ModelError(f"the Hub refuses {name} ({said})")


def _siblings(info: ModelInfo) -> dict[str, tuple[int, str]]:
    """Name → (bytes, sha256 or "") of the repository's files, subfolders left out."""
    return {
        file.rfilename: (file.size or 0, file.lfs.sha256 if file.lfs else "")
        for file in info.siblings or []
        if "/" not in file.rfilename
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's warnings (retries, no token) are not the one line that a user should read, and
    its progress bars are for terminals."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level == logging.WARNING:  # its default; anything else was asked for
        logger.setLevel(logging.ERROR)
    try:
        with nullcontext() if sys.stderr.isatty() else disable_progress_bars():
            yield
    finally:
        logger.setLevel(level)


# --- what a folder holds --------------------------------------------------------------------------


def _weights(names: Collection[str], folder: Path) -> list[str]:
    """The weight files to use of `names`; `folder` has the index where they are split. Raises
    ModelError if there are none or some are missing."""
    for single, index in (_SAFE, _PICKLED):
        if single in names:
            return [single]
        if index not in names:
            continue
        try:
            weight_map = json.loads((folder / index).read_text("utf-8"))["weight_map"]
            shards = sorted(set(weight_map.values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{folder / index}: not an index of weights") from None
        absent = [shard for shard in shards if shard not in names]
        if absent:
            raise ModelError(f"{folder}: weights are incomplete, {absent[0]} is missing")
        return shards
    raise ModelError(f"{folder}: no weights ({_SAFE[0]} or {_PICKLED[0]})")


def _identity(folder: Path) -> list[str]:
    """Names of the files that make this base what it is, weights included. Raises ModelError."""
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    beside = {name for name in names if _matches(name, _IDENTITY)}
    return sorted(beside.union(_weights(names, folder)))


def _check_config(name: str, folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        architectures = [str(entry) for entry in config.get("architectures") or []]
    except FileNotFoundError:
        raise ModelError(f"{name} is no transformers model: it has no config.json") from None
    except (ValueError, AttributeError, TypeError):
        raise ModelError(f"config.json of {name} is not readable as a JSON object") from None
    if not any(entry.endswith(("ForCausalLM", "LMHeadModel")) for entry in architectures):
        found = ", ".join(architectures) or "no architecture"
        raise ModelError(f"{name} is no causal language model: its config.json names {found}")
    if not any(_matches(entry.name, _VOCABULARY) for entry in folder.iterdir()):
        raise ModelError(f"{name} has no tokenizer (tokenizer.json)")


def _loadable(name: str, source: Path, commit: str, home: Path, log: Log) -> Path:
    """`source`, or its conversion where the weights are pickles. Raises ModelError."""
    _check_config(name, source)
    identity = _identity(source)
    for file in identity:
        with (source / file).open("rb") as opened:
            if opened.read(24) == b"version https://git-lfs.":
                raise ModelError(f"{source / file} is a Git LFS pointer: run git lfs pull there")
    if any(file.endswith(".safetensors") for file in identity):
        return source
    # A snapshot is known by its commit, a folder by what is in it.
    key = commit or _combine(_hash_files(source, identity, {}))
    slug = name.replace("/", "--") if commit else source.name
    return _converted(name, source, home / "base-model" / f"{slug}-{key[:12]}", log)


_CONVERT = """
import pickle, sys
from transformers import AutoModelForCausalLM
source, target = sys.argv[1:]
try:
    model, report = AutoModelForCausalLM.from_pretrained(
        source, dtype="auto", use_safetensors=False, weights_only=True,
        local_files_only=True, trust_remote_code=False, output_loading_info=True,
    )
    if report["missing_keys"]:
        sys.exit("the weights lack " + ", ".join(sorted(report["missing_keys"])[:3]))
    model.save_pretrained(target)
except pickle.UnpicklingError:
    sys.exit("its pickle holds something else than weights, which is not loaded")
except Exception as error:
    sys.exit(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
"""


def _converted(name: str, source: Path, target: Path, log: Log) -> Path:
    if target.is_dir():
        return target
    target.parent.mkdir(exist_ok=True)
    for leftover in target.parent.glob(".converting-*"):  # we hold the lock: nobody works there
        shutil.rmtree(leftover, ignore_errors=True)
    log(f"converting the weights of {name} to safetensors, once")
    staging = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    command = [sys.executable, "-P", "-c", _CONVERT, str(source), str(staging)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=offline)
        if "No space left on device" in done.stderr:
            raise ResourceError(f"no space left to convert {name} in {target.parent}")
        if done.returncode < 0:
            raise ResourceError(f"converting {name} was killed: probably not enough memory for it")
        if done.returncode:
            raise ModelError(f"{name} cannot be converted: {_last_line(done.stderr)}")
        # Config and tokenizer stay as they were published; only the weights change their form.
        for entry in source.iterdir():
            if entry.is_file() and _matches(entry.name, _SMALL_FILES):
                shutil.copyfile(entry, staging / entry.name)
        staging.chmod(0o755)
        for path in (*staging.iterdir(), staging):
            _sync(path)
        staging.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


# --- files ----------------------------------------------------------------------------------------


def _hash_files(
    folder: Path, names: Collection[str], known: Mapping[str, _FileState]
) -> dict[str, _FileState]:
    files = {}
    for name in sorted(names):
        stat = (folder / name).stat()
        state = known.get(name)
        if state is None or (state.size, state.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            sha256 = _sha256(folder / name)
            state = _FileState(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256)
        files[name] = state
    return files


def _combine(files: Mapping[str, _FileState]) -> str:
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path) -> _Record | None:
    try:
        return _Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ModelError(f"{path} is damaged: restore it; {_start_over(path.parent)}") from None


def _write(path: Path, record: _Record) -> None:
    temporary = path.with_name(f"{path.name}.new")  # alone here: the caller holds the lock
    temporary.write_text(record.model_dump_json(indent=2) + "\n", "utf-8")
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path, log: Log) -> Iterator[None]:
    with path.open("a") as file:
        patience_ends: float = time.monotonic() + 2
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience_ends:
                    log("waiting for another process that is fetching the base model")
                    patience_ends = float("inf")
                time.sleep(0.1)
        yield


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else ""


def _brief(error: BaseException) -> str:
    """One line on the error at the root of the chain: the library's own say little."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    # An address of the Hub's storage carries a signature a thousand characters long.
    return lines[0].partition(" for url ")[0][:160] if lines else type(error).__name__
