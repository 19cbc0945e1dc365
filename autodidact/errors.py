"""Every error that a user can cause. Each carries one line: what was wrong, where, what to do.

    AutodidactError            exit code 1
    ├── SettingError           2  a setting is unknown or out of range
    ├── SourceError            2  a source cannot be read (the cycle goes on with the others)
    │   └── SourceUnreachable  2  … for now; carries no verdict on the source itself
    ├── ModelError             2  the base model cannot be found, fetched or loaded
    │   ├── BaseUnfit          2  … cannot be taught or served, whatever is tried
    │   ├── HubUnreachable     2  … because the Hub does not answer and nothing is cached
    │   └── BaseMismatch       2  … because base.json fixes another one
    ├── CheckpointError        3  a checkpoint is damaged, incomplete or not ours
    ├── ResourceError          4  disk or memory is short
    ├── StoreBusy              1  another program holds a database for long; passes by itself
    ├── StoreOutdated          1  a database waits for the learner to bring it up to date
    ├── LockHeld               5  another learner (or server) works in this folder
    ├── Misfit                 1  what one process wrote for another has not the fields it must
    ├── TrainingError          1  the study process failed; the cycle is recorded as failed
    │   └── OutOfMemory        1  … for want of memory; another time it may do
    └── GeneratorError         1  a reply cannot be made; `status` is the HTTP status it maps to
        ├── UnknownModel       404
        ├── ContextExceeded    400
        ├── DialogueRefused    400
        ├── NotReady           503 with `retry_after_s`
        ├── Busy               503 with `retry_after_s`
        └── RateExceeded       429 with `retry_after_s`

Entry points print `str(error)` after "autodidact: " on standard error and exit with `exit_code`.
Anything that is not an `AutodidactError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class AutodidactError(Exception):
    """Root of the tree. `str(error)` is the one line for the user."""

    exit_code = 1


class SettingError(AutodidactError):
    exit_code = 2


class SourceError(AutodidactError):
    exit_code = 2


class SourceUnreachable(SourceError):
    """The source does not answer at present: back off and try again."""


class ModelError(AutodidactError):
    exit_code = 2


class BaseUnfit(ModelError):
    """The base is of a kind that cannot be taught, or not be served either: trying again is of no
    use."""


class HubUnreachable(ModelError):
    """The Hub cannot be reached and the model is not cached."""


class BaseMismatch(ModelError):
    """`base.json` fixes another base than the one asked for."""


class CheckpointError(AutodidactError):
    exit_code = 3


class ResourceError(AutodidactError):
    exit_code = 4


class StoreBusy(AutodidactError):
    """Another program (a backup, say) holds a database. Nothing was written; try again."""

    retry_after_s = 2


class StoreOutdated(AutodidactError):
    """A reader met a database of an older schema."""


class LockHeld(AutodidactError):
    exit_code = 5


class Misfit(AutodidactError):
    """JSON that does not fit its type; the line names the field."""


class TrainingError(AutodidactError):
    """A study failed."""


class OutOfMemory(TrainingError):
    """The study had not enough memory, or was killed as if for that."""


class GeneratorError(AutodidactError):
    """A reply cannot be made. `status` is the HTTP status, `retry_after_s` the wait to suggest."""

    status = 500

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownModel(GeneratorError):
    status = 404


class ContextExceeded(GeneratorError):
    """A prompt and its reply do not fit. `context` and `prompt` are in tokens, where they are
    known."""

    status = 400

    def __init__(self, message: str, context: int | None = None, prompt: int | None = None) -> None:
        super().__init__(message)
        self.context = context
        self.prompt = prompt


class DialogueRefused(GeneratorError):
    """The model's chat template takes no such dialogue (no system turn, say)."""

    status = 400


class NotReady(GeneratorError):
    status = 503


class Busy(GeneratorError):
    status = 503


class RateExceeded(GeneratorError):
    """One address asks more often than the settings allow."""

    status = 429
