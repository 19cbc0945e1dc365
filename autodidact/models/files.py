"""A model as files: what makes a folder a loadable base, its identity, its weights.

Weights that come only as pickles (.bin) are converted once, by a child process with
`weights_only=True`; this process unpickles nothing and never imports torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autodidact.errors import ModelError, ResourceError
from autodidact.home import fsync

Log = Callable[[str], None]

# What makes a base the one it is, beside its weights: these decide what goes in and comes out.
_VOCABULARY = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.*")
IDENTITY = (
    *_VOCABULARY,
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.json",
    "*.jinja",
)
SMALL_FILES = (*IDENTITY, "generation_config.json")
SAFE = ("model.safetensors", "model.safetensors.index.json")
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class FileState(BaseModel):
    """A file's hash, with the size and time it was taken at: unchanged means not read again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    mtime_ns: int
    sha256: str


def weights(names: Collection[str], folder: Path) -> list[str]:
    """The weight files to use of `names`; `folder` has the index where they are split. Raises
    ModelError if there are none or some are missing."""
    for single, index in (SAFE, PICKLED):
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
    raise ModelError(f"{folder}: no weights ({SAFE[0]} or {PICKLED[0]})")


def identity_files(folder: Path) -> list[str]:
    """Names of the files that make this base what it is, weights included. Raises ModelError."""
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    beside = {name for name in names if matches(name, IDENTITY)}
    return sorted(beside.union(weights(names, folder)))


def check_config(name: str, folder: Path) -> None:
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
    if not any(matches(entry.name, _VOCABULARY) for entry in folder.iterdir()):
        raise ModelError(f"{name} has no tokenizer (tokenizer.json)")


def loadable(name: str, source: Path, commit: str, home: Path, log: Log) -> Path:
    """`source`, or its conversion where the weights are pickles. Raises ModelError."""
    check_config(name, source)
    identity = identity_files(source)
    for file in identity:
        with (source / file).open("rb") as opened:
            if opened.read(24) == b"version https://git-lfs.":
                raise ModelError(f"{source / file} is a Git LFS pointer: run git lfs pull there")
    if any(file.endswith(".safetensors") for file in identity):
        return source
    # A snapshot is known by its commit, a folder by what is in it.
    key = commit or combine(hash_files(source, identity, {}))
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
    log(f"converting the weights of {name} to safetensors, once")
    # Config and tokenizer stay as they were published; only the weights change their form.
    beside = [entry for entry in source.iterdir() if entry.is_file()]
    small = [entry for entry in beside if matches(entry.name, SMALL_FILES)]
    return convert(name, target, _CONVERT, str(source), small)


def convert(
    name: str, target: Path, script: str, source: str, beside: Collection[Path] = ()
) -> Path:
    """`target`, made as a whole by a child process that runs `script` with `source` and a folder as
    its arguments; the files `beside` are put there too. Nothing is done if it exists. Raises
    ModelError with the child's last line, or ResourceError."""
    if target.is_dir():
        return target
    target.parent.mkdir(exist_ok=True)
    for leftover in target.parent.glob(".converting-*"):  # we hold the lock: nobody works there
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    command = [sys.executable, "-P", "-c", script, source, str(staging)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=offline
        )
        if "No space left on device" in done.stderr:
            raise ResourceError(f"no space left to convert {name} in {target.parent}")
        if done.returncode < 0:
            raise ResourceError(f"converting {name} was killed: probably not enough memory for it")
        if done.returncode:
            raise ModelError(f"{name} cannot be converted: {last_line(done.stderr)}")
        for entry in beside:
            shutil.copyfile(entry, staging / entry.name)
        staging.chmod(0o755)
        for path in (*staging.iterdir(), staging):
            fsync(path)
        staging.rename(target)
        fsync(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def hash_files(
    folder: Path, names: Collection[str], known: Mapping[str, FileState]
) -> dict[str, FileState]:
    files = {}
    for name in sorted(names):
        stat = (folder / name).stat()
        state = known.get(name)
        if state is None or (state.size, state.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            sha256 = sha256_of(folder / name)
            state = FileState(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256)
        files[name] = state
    return files


def combine(files: Mapping[str, FileState]) -> str:
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else ""


def brief(error: BaseException) -> str:
    """One line on the error at the root of the chain: the library's own say little."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    # An address of the Hub's storage carries a signature a thousand characters long.
    return lines[0].partition(" for url ")[0][:160] if lines else type(error).__name__
