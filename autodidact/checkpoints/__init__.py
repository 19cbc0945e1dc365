"""Published versions on disk: publish, verify, retain, roll back, pin. Files only, no torch.

    <home>/versions/000042/  adapter_model.safetensors adapter_config.json report.json manifest.json
    <home>/.staging/  work in progress       <home>/.trash/  being deleted
    <home>/CURRENT    the newest version, "000042"; "000000" is the untouched base
    <home>/PIN        the version that serves whatever is published; without this file, the newest
    <home>/REJECTED   versions that the server could not load, one a line with the reason

A version folder never changes once it stands under `versions/`. A reader that has read `CURRENT`
holds a shared lock on the folder while it reads; retention takes the exclusive lock or leaves the
folder for later. A published folder is an ordinary PEFT adapter:
`PeftModel.from_pretrained(base, folder)` works.

May import: types, errors, home. What is named here is the room's whole interface.
"""

from autodidact.checkpoints.leases import VerifiedFiles, verify
from autodidact.checkpoints.pins import (
    pin,
    pinned,
    reject,
    rejected,
    roll_back,
    serving,
    unpin,
)
from autodidact.checkpoints.publication import clear_staging, finish_publication, publish, staging
from autodidact.checkpoints.retention import discard, retain
from autodidact.checkpoints.versions import (
    BASE_VERSION,
    CONFIG,
    MANIFEST,
    REPORT,
    WEIGHTS,
    current,
    folder,
    name,
    point,
    read,
    versions,
)

__all__ = [
    "BASE_VERSION",
    "CONFIG",
    "MANIFEST",
    "REPORT",
    "WEIGHTS",
    "VerifiedFiles",
    "clear_staging",
    "current",
    "discard",
    "finish_publication",
    "folder",
    "name",
    "pin",
    "pinned",
    "point",
    "publish",
    "read",
    "reject",
    "rejected",
    "retain",
    "roll_back",
    "serving",
    "staging",
    "unpin",
    "verify",
    "versions",
]
