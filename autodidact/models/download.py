"""Fetching a model from the Hugging Face Hub into the Hub's own cache.

Weights are fetched by plain HTTPS with ranges and checked against their sha256, because
huggingface_hub 2 starts an interrupted file from zero and throws away what has arrived. What the
Hub refuses (gated, missing, unknown revision) is a ModelError with one line; a Hub that does not
answer is NoAnswer, and the caller decides what that means.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from autodidact.errors import ModelError, ResourceError
from autodidact.models.files import (
    NO_SPACE,
    PICKLED,
    SAFE,
    SMALL_FILES,
    brief,
    check_config,
    identity_files,
    sha256_of,
    size_of,
    weights,
)

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

Log = Callable[[str], None]


class NoAnswer(Exception):
    """The Hub is out of reach and the model is not cached; `str` says why out of reach."""


def from_hub(name: str, revision: str, log: Log) -> Path:
    """The snapshot's folder, named by its commit: fetched, or cached where the Hub is out of reach.
    Raises NoAnswer, ModelError or ResourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with _quiet():
            return _download(name, revision, log)
    except NoAnswer as silence:
        try:
            folder = Path(
                snapshot_download(
                    name,
                    revision=revision or None,
                    allow_patterns="config.json",
                    local_files_only=True,
                )
            )
            identity_files(folder)  # an interrupted download leaves a snapshot without its weights
        except (LocalEntryNotFoundError, ModelError):
            raise silence from None
        log(f"the Hugging Face Hub is out of reach ({silence}): using {name} from the cache")
        return folder


def file_from_hub(name: str, file: str, revision: str, log: Log) -> Path:
    """One file of a repository, in the snapshot's folder, which is named by its commit: fetched, or
    cached where the Hub is out of reach. Raises NoAnswer, ModelError or ResourceError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(*, cached: bool) -> Path:
        at = revision or None
        return Path(
            snapshot_download(name, revision=at, allow_patterns=file, local_files_only=cached)
        )

    if "/" in file or not file.endswith(".gguf"):
        raise ModelError(f"{name}:{file} names no GGUF file, such as owner/name:model.gguf")
    try:
        with _quiet():
            info = _ask(name, revision)
            siblings = _siblings(info)
            if file not in siblings:
                there = ", ".join(sorted(s for s in siblings if s.endswith(".gguf"))[:6])
                raise ModelError(f"{name} has no file {file}; it has {there or 'no GGUF file'}")
            with _download_errors(name, revision):
                # By the name, not the commit: this records what "main" means, for a start offline.
                snapshot_download(name, revision=revision or None, allow_patterns="config.json")
                folder = _snapshot_folder(name, str(info.sha))
                _fetch_weights(name, info, folder, [file], log)
                return snapshot(cached=False) / file
    except NoAnswer as silence:
        try:
            path = snapshot(cached=True) / file
        except LocalEntryNotFoundError:
            raise silence from None
        if not path.is_file():
            raise silence from None
        log(f"the Hugging Face Hub is out of reach ({silence}): using {name} from the cache")
        return path


def _snapshot_folder(name: str, commit: str) -> Path:
    """Where the cache keeps a snapshot, made if it has none of its files yet."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    folder = cache / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    (cache / "blobs").mkdir(exist_ok=True)
    return folder


def _download(name: str, revision: str, log: Log) -> Path:
    from huggingface_hub import snapshot_download

    info = _ask(name, revision)
    if "config.json" not in _siblings(info):
        raise ModelError(f"{name} is no transformers model: it has no config.json")
    with _download_errors(name, revision):
        # By the name, not the commit: this records what "main" means, for a start without network.
        small = [*SMALL_FILES, SAFE[1], PICKLED[1]]
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=small))
        if folder.name != info.sha:  # the branch has moved on since we asked
            info = _ask(name, folder.name)
        check_config(name, folder)
        _fetch_weights(name, info, folder, weights(_siblings(info), folder), log)
    return folder


def _ask(name: str, revision: str) -> ModelInfo:
    """What the Hub says of the model. Raises NoAnswer within seconds if it says nothing."""
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
        raise NoAnswer(f"no answer within {limit_s} s") from None
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
        raise NoAnswer(brief(answer)) from answer
    raise answer


def _fetch_weights(
    name: str, info: ModelInfo, folder: Path, files: Sequence[str], log: Log
) -> None:
    from huggingface_hub import constants, snapshot_download

    siblings = _siblings(info)
    missing = [file for file in files if not (folder / file).is_file()]
    if not missing:
        return
    blobs = folder.parents[1] / "blobs"
    total = sum(siblings[file][0] for file in missing)
    arrived = sum(size_of(_partial(blobs, siblings[file][1])) for file in missing)
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
        if sha256_of(partial) != sha256:
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
        if getattr(error, "errno", None) in NO_SPACE:
            raise ResourceError(f"no space left for {name} in {constants.HF_HUB_CACHE}") from error
        refusal = _refusal(error, name, revision)
        if refusal:
            raise refusal from error
        raise ModelError(
            f"the download of {name} was interrupted ({brief(error)}): what has arrived is kept, "
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
