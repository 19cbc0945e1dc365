"""Settings, one frozen typed tree: defaults < `autodidact.toml` < environment < flags.

Environment variables are `AUTODIDACT_` and the path with `__` between its parts
(`AUTODIDACT_SERVER__PORT=9000`). An unknown key fails and names the nearest one. Modules receive
their section, never the tree and never `os.environ`. Relative paths count from the folder of the
settings file (on the command line: from the working folder). The sentence under each field is its
documentation.

What a source, a filter or a generator may be told stands beside it, and `registry` finds it:
`tree` is `Settings` with a table for each (`[sources.NAME]`, `[curation.NAME]`,
`[generators.NAME]`), and for one's own that the file names (`[sources.own.NAME]`). That is done
when settings are asked for, never at import, because those modules import this one.

May import: errors, registry.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
import tomllib
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from autodidact import registry
from autodidact.errors import SettingError

PROJECT = Path(__file__).resolve().parent.parent
ENV_PREFIX = "AUTODIDACT_"
KINDS = {
    "sources": registry.SOURCES,
    "curation": registry.FILTERS,
    "generators": registry.GENERATORS,
}
"""The sections that hold a table for each part of a kind."""
Own = tuple[tuple[str, str, str, type[Any]], ...]
"""One's own parts: section, name, path of the class, class."""


class Section(BaseModel):
    """A table of the file. The settings of a source, a filter or a generator are one, and stand
    beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SourcesSettings(Section):
    files: tuple[Path, ...] = (Path("library"),)
    """Folders of .txt, .md and .html files to learn from; a "control" folder inside is skipped."""
    control: Path | None = Path("library/control")
    """Documents that are never taught: what they score is chance. "" means none."""

    @field_validator("control", mode="before")
    @classmethod
    def _empty_means_none(cls, value: object) -> object:
        return None if value == "" else value


class CurationSettings(Section):
    """The tables of the filters, which stand beside them."""


class GeneratorsSettings(Section):
    """The tables of the generators, which stand beside them. `server.generator` chooses one."""


class ScheduleSettings(Section):
    fetch_minutes: float = Field(30.0, gt=0)
    """How often the sources are asked for something new."""
    learn_minutes: float = Field(1.0, gt=0)
    """How often the learner looks whether there is something to learn; cycles never overlap."""
    gives_way: bool = True
    """Whether a study takes the lowest priority, so that chat and all else go first, and waits
    while a reply is being made on the CPU."""


class TrainingSettings(Section):
    documents_per_cycle: int = Field(20, ge=1, le=500)
    """At most this many new documents a cycle; a slow machine takes fewer, to learn them well."""
    rank: int | None = Field(None, ge=1, le=512)
    """Rank of the LoRA adapter, on all linear layers (alpha equals rank); empty means by model
    size: 64, from 100 million parameters 32 and on the upper half of the blocks."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate; empty means by model size."""
    batch_size: int | None = Field(None, ge=1)
    """Sequences a step; empty means by model size."""
    kl_weight: float | None = Field(None, ge=0)
    """Weight of the KL term that ties the adapted model to its base on anchors; empty means by
    model size: 24, from 100 million parameters 3."""
    drift_target: float = Field(0.015, ge=0)
    """Rise in general NLL over the base, in nats a token, up to which the KL weight stays as it
    is; beyond it the weight grows with the square of the rise, up to fourfold. 0: never."""
    max_exposures: int | None = Field(None, ge=1)
    """Training stops early once each new fact has been shown this often; empty means by model
    size: 400, from 100 million parameters 40."""
    min_exposures: int | None = Field(None, ge=1)
    """A cycle takes no more documents than can be shown this often in the time it has; empty
    means by model size: 48, from 100 million parameters 12."""
    replay_share: float = Field(0.6, ge=0, lt=1)
    """Share of a cycle's examples that repeats earlier documents: at least so much, and from 100
    million parameters at most, as a known fact gets a quarter of what a new one gets. What new
    facts do not need goes there too."""
    consolidate_every: int = Field(10, ge=0)
    """After this many published cycles one repeats everything learned and learns nothing new; 0:
    never, unless the drift budget is spent (then a fresh adapter learns everything anew)."""
    consolidation_cycles: float = Field(4.0, gt=0, le=10)
    """How many cycles' time a consolidation may take."""
    self_written_from_billion: float = Field(1.0, gt=0)
    """From this many billion parameters up the model also writes questions and implications of
    its own, which are filtered."""
    threads: int = Field(0, ge=0)
    """CPU threads of the study process; 0 means all cores, from three cores on all but one."""
    seed: int = Field(0, ge=0)
    """Seed of every random choice in the learner."""


class GateSettings(Section):
    general_limit: float = Field(0.10, gt=0)
    """Largest upper bound of the rise in general NLL over the base, in nats a token."""
    general_step: float = Field(0.10, gt=0)
    """Largest mean rise in general NLL over the parent, in nats a token."""
    kept_limit: float = Field(0.15, gt=0)
    """Largest mean rise in the NLL of earlier answers since each was learned, in nats a token."""
    kept_step: float = Field(0.15, gt=0)
    """Largest rise in the NLL of earlier answers over the parent, in nats a token, unless it is
    within chance."""
    chat_limit: float = Field(0.05, gt=0, le=1)
    """Largest fall in the share of well-formed replies below the base."""
    chat_step: float = Field(0.02, gt=0, le=1)
    """Largest fall in the share of well-formed replies below the parent, unless it is within
    chance."""
    mind_limit: float = Field(0.15, gt=0, le=1)
    """Largest share of everyday prompts that are answered worse than by the base, unless it is
    within chance."""
    mind_step: float = Field(0.05, gt=0, le=1)
    """Largest rise of that share over the parent, unless it is within chance."""
    control_probes: int = Field(60, ge=0)
    """At most this many control probes are measured in a cycle."""
    taught_probes: int = Field(120, ge=1)
    """At most this many probes on new documents are measured in a cycle."""
    unseen_probes: int = Field(40, ge=0)
    """At most this many probes in wordings that are never trained are measured in a cycle."""
    kept_probes: int = Field(200, ge=0)
    """At most this many probes on documents of earlier cycles are measured in a cycle."""


class RetrievalSettings(Section):
    enabled: bool | None = None
    """Look up passages of learned documents for a question, unless a request says otherwise; not
    set: on, except for models under 100 million parameters, which read passages worse than they
    remember (docs/learning.md)."""
    passages: int = Field(3, ge=1, le=10)
    """At most this many passages are put before a question; they fill at most half the context."""
    relevance: float = Field(0.5, ge=0, le=1)
    """Least share of a question's telling words, weighted by how rare they are, that a passage must
    hold to be used."""


class ServerSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. There is no login: leave it at 127.0.0.1 unless a proxy guards it."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on."""
    generator: str = "local"
    """What answers: "local" is the model in the server itself; else the name of a table under
    `[generators]` or `[generators.own]`."""
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    """Host names under which the page may be opened (protects against DNS rebinding)."""
    allowed_origins: tuple[str, ...] = ()
    """Other sites and desktop programs whose pages may ask here, as their browser names them:
    `https://notes.example.org`, `app://obsidian.md`."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-Host`, `-Proto` and `-For` are believed;
    allowed hosts and addresses are then those that the proxy was asked for and by."""
    max_concurrent: int = Field(32, ge=1, le=256)
    """Replies generated at the same time, in one batch; more wait in the queue."""
    max_queue: int = Field(64, ge=0, le=4096)
    """Requests that may wait; more get a 503. A generator without a queue begins these at once,
    too."""
    queue_seconds: float = Field(30.0, gt=0)
    """A request that has waited this long for its turn gets a 503."""
    reply_seconds: float = Field(600.0, gt=0)
    """A reply that has taken this long ends where it is."""
    requests_per_minute: int = Field(0, ge=0)
    """Requests for a reply that one address may make a minute; more get a 429. 0: any number.
    Behind a proxy the address is the proxy's, unless `trusted_proxies` names it."""
    versions_in_memory: int = Field(4, ge=1, le=64)
    """Adapters held ready besides those that answer now; others are read from disk when asked."""
    prefill_tokens: int = Field(128, ge=16, le=4096)
    """Prompt tokens computed between two tokens of the replies that run; fewer keep those
    smoother, more let new ones begin sooner."""
    prefix_cache_mb: int = Field(256, ge=0, le=1_000_000)
    """Memory for what earlier requests have computed, so that what a prompt repeats of them (a
    conversation so far, the system turn) is not computed again; 0: none."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the served weights; "auto" on a CPU: bfloat16 where that is clearly faster
    and the model has at least 30 million parameters, float32 otherwise."""
    runtime: Literal["auto", "torch", "onnx"] = "auto"
    """What computes replies on a CPU. "auto": ONNX Runtime, several times as fast, for a base of
    4- or 8-bit weights (one that came as a GGUF file) where it is faster here; torch otherwise."""
    quantisation: Literal["none", "int8", "int4"] = "none"
    """Weights in 8 or 4 bits: less memory, slightly other replies; adapters stay as they are."""
    admin_key: SecretStr = SecretStr("")
    """Who sends it as a bearer token may pin and roll back over HTTP; "" lets only this machine."""
    threads: int = Field(0, ge=0)
    """CPU threads of one forward pass; 0: as few as are about as fast as more, by measurement."""

    @property
    def wanted_runtime(self) -> Literal["auto", "torch", "onnx"]:
        """`runtime` beside the other settings: another format of weights is torch's."""
        return self.runtime if self.dtype == "auto" and self.quantisation == "none" else "torch"

    @field_validator("allowed_origins")
    @classmethod
    def _name_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s*]+", origin, re.IGNORECASE):
                raise PydanticCustomError(
                    "origin", "must be a list of a scheme and a host each, such as app://notes"
                )
        return tuple(map(str.lower, origins))

    @field_validator("trusted_proxies")
    @classmethod
    def _name_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network, strict=False)
            except ValueError:
                raise PydanticCustomError(
                    "network", "must be a list of addresses or networks, such as 10.0.0.0/8"
                ) from None
        return networks


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @field_validator("home", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if not str(value).strip():
            raise PydanticCustomError("empty_home", "must name a folder")
        return value

    model: str = "auto"
    """The base model: "auto", a Hugging Face name, a folder, or a GGUF file (`model.gguf`, or
    `owner/name:model.gguf` on the Hub). Fixed at the first start."""
    revision: str = ""
    """Branch, tag or commit of a Hugging Face model; empty means its default."""
    rounding: Literal["auto", "none", "8bit"] = "auto"
    """Whether a model that comes in floats is rounded once to numbers of eight bits, for learning
    and replies alike; "auto": on a CPU, where replies come several times as fast by them and the
    model has between 30 and 600 million parameters. Fixed at the first start."""
    home: Path = Path("continuous_learner")
    """The folder that learner and server share."""
    cycle_minutes: float = Field(5.0, gt=0, le=24 * 60)
    """How long a learning cycle should take, from fetched documents to the published checkpoint."""
    keep_versions: int = Field(5, ge=2)
    """Published versions to keep, besides the pinned and the current one."""
    sources: SourcesSettings = SourcesSettings()
    """What it reads."""
    curation: CurationSettings = CurationSettings()
    """What of it is taken."""
    schedule: ScheduleSettings = ScheduleSettings()
    """When it reads and learns."""
    training: TrainingSettings = TrainingSettings()
    """How it learns."""
    gate: GateSettings = GateSettings()
    """What a checkpoint must show before it is published."""
    server: ServerSettings = ServerSettings()
    """The chat server."""
    generators: GeneratorsSettings = GeneratorsSettings()
    """What may answer in it."""
    retrieval: RetrievalSettings = RetrievalSettings()
    """Looking things up in what was learned."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, _File(settings_cls))


class _File(TomlConfigSettingsSource):
    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return _toml(file_path)


def _toml(path: Path) -> dict[str, Any]:
    """What a settings file says. Some editors put a mark in front of UTF-8; it says nothing.
    Raises SettingError, or what the file system says."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise SettingError(f"{path}: not UTF-8; save it in that encoding") from None


def tree(own: Own = ()) -> type[Settings]:
    """`Settings` with a table for each part that there is, one's own included."""
    parts = tuple((name, *found) for name in KINDS for found in registry.found(KINDS[name]).items())
    return _tree(parts, own)


@functools.cache
def _tree(parts: tuple[tuple[str, str, type[Any]], ...], own: Own) -> type[Settings]:
    sections: dict[str, Any] = {}
    for name in KINDS:
        plain = Settings.model_fields[name]
        assert isinstance(plain.annotation, type)
        assert issubclass(plain.annotation, BaseModel)
        owned: dict[str, Any] = {
            called: _field(_with_class(part.settings, path))
            for section, called, path, part in own
            if section == name
        }
        tables: dict[str, Any] = {
            called: _field(part.settings) for section, called, part in parts if section == name
        }
        for called in tables:
            if not _is_name(called) or called in ("own", *plain.annotation.model_fields):
                word = KINDS[name].word
                raise SettingError(f"{name}.{called}: not a name that a {word} may have")
        if owned:
            tables["own"] = _field(create_model("Own", __base__=Section, **owned))
        section = create_model(plain.annotation.__name__, __base__=plain.annotation, **tables)
        sections[name] = (section, Field(_default(section), description=plain.description))
    return create_model("Settings", __base__=Settings, **sections)


def _field(section: type[BaseModel]) -> tuple[Any, Any]:
    return section, Field(_default(section), description=(section.__doc__ or "").strip())


def _default(section: type[BaseModel]) -> Any:
    """The section with nothing set; a field that must be set is missed when the file is read."""
    try:
        return section()
    except ValidationError:
        return ...


def _is_name(called: str) -> bool:
    """Whether a table may be called so: a variable can name it, and pydantic does not use it."""
    return bool(re.fullmatch(r"[a-z][a-z0-9_]*", called)) and not hasattr(Section, called)


def _with_class(section: type[BaseModel], path: str) -> type[BaseModel]:
    """The settings of one's own part, and the `class` that the file gives it."""
    named: dict[str, Any] = {
        "class_": (Literal[path], Field(path, alias="class", description="`module:Class`."))
    }
    return create_model(section.__name__, __base__=section, **named)


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Merge the settings once and make every path absolute.

    `config` is the settings file; None means `autodidact.toml` in the working folder, or else in
    the project's own. `flags` are fields of the tree given on the command line; None values are
    left out. Raises SettingError with one line that names the key.
    """
    path = _find(config)
    root = path.parent if path else PROJECT
    given = {key: _from_here(value) for key, value in flags.items() if value is not None}
    try:
        whole = tree(_own(path, root))
        _check_environment(whole)

        class FromFile(whole):  # type: ignore[valid-type, misc]
            model_config = SettingsConfigDict(toml_file=path)

        loaded: Settings = FromFile(**given)
    except ValidationError as error:
        raise SettingError(_one_line(error, path, whole)) from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path}: not valid TOML: {error}") from None
    except (ValueError, OSError) as error:
        raise SettingError(f"{path or 'settings'}: {str(error).splitlines()[0]}") from None
    loaded = _anchored(loaded, root)
    if loaded.model != "auto" and (root / loaded.model).exists():
        loaded = loaded.model_copy(update={"model": str((root / loaded.model).resolve())})
    return loaded


def _own(path: Path | None, root: Path) -> Own:
    """One's own parts that the file names. What else is wrong with it is told by the tree."""
    told = _toml(path) if path else {}
    found: list[tuple[str, str, str, type[Any]]] = []
    for name, kind in KINDS.items():
        section = told.get(name)
        tables = section.get("own", {}) if isinstance(section, dict) else {}
        if not isinstance(tables, dict):
            raise SettingError(f"{path and path.name}: {name}.own: must be a table of tables")
        for called, table in tables.items():
            key = f"{path and path.name}: {name}.own.{called}"
            if not _is_name(called):
                raise SettingError(f"{key}: not a name; use small letters, digits and _")
            given = table.get("class") if isinstance(table, dict) else None
            part = registry.own(kind, given, f"{key}.class", root)
            if not issubclass(part.settings, Section):
                raise SettingError(
                    f"{key}.class: {given} is not a {kind.word}: its `settings` must be a Section "
                    "of autodidact.settings"
                )
            found.append((name, called, str(given), part))
    return tuple(found)


def _from_here(value: Any) -> Any:
    """A path on the command line counts from the working folder, whatever the settings file."""
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_dir()):
        return type(value)(_at_home(Path(value)).absolute())
    return value


def _find(config: Path | None) -> Path | None:
    if config is not None:
        if not config.is_file():
            raise SettingError(f"{config}: no such settings file")
        return config.resolve()
    for folder in (Path.cwd(), PROJECT):
        if (folder / "autodidact.toml").is_file():
            return (folder / "autodidact.toml").resolve()
    return None


def _at_home(path: Path) -> Path:
    """With `~` and `~name` as a shell reads them; as it stands where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


_Model = TypeVar("_Model", bound=BaseModel)


def _anchored(section: _Model, root: Path) -> _Model:
    """The section with every path in it counted from `root`."""
    changed: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            changed[name] = _anchored(value, root)
        elif isinstance(value, Path):
            changed[name] = root / _at_home(value)
        elif isinstance(value, tuple):
            changed[name] = tuple(root / _at_home(v) if isinstance(v, Path) else v for v in value)
    return section.model_copy(update=changed)


def leaves(model: type[BaseModel] | None = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of the tree as (dotted key, pydantic FieldInfo)."""
    for name, info in (model or tree()).model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from leaves(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{info.alias or name}", info


def _check_environment(whole: type[Settings]) -> None:
    known = {ENV_PREFIX + key.replace(".", "__").upper(): info for key, info in leaves(whole)}
    known |= {ENV_PREFIX + name.upper(): info for name, info in Settings.model_fields.items()}
    for name, value in os.environ.items():
        if not name.upper().startswith(ENV_PREFIX):
            continue
        if name.upper() not in known:
            nearest = _nearest(name.upper(), list(known))
            raise SettingError(f"environment variable {name}: no such setting{nearest}")
        kind = known[name.upper()].annotation
        example = _WRITTEN.get(get_origin(kind) or kind, "")
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            example = '{"key": "value"}'
        if example and not _is_json(value):
            raise SettingError(f"environment variable {name}: must be JSON, such as {example}")


_WRITTEN: dict[Any, str] = {tuple: '["one", "two"]', list: '["one", "two"]', dict: '{"key": 1}'}
"""How values of several parts are written in a variable."""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _nearest(name: str, known: set[str] | list[str]) -> str:
    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    return f"; did you mean {match[0]}?" if match else ""


_SAYS = {
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "finite_number": "must be a finite number",
}
"""Python's words for types, in TOML's."""


def _one_line(error: ValidationError, path: Path | None, whole: type[Settings]) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    where = path.name if path else "settings"
    if first["type"] == "extra_forbidden":
        known = [name for name, _ in leaves(whole)] + list(Settings.model_fields)
        return f"{where}: {key}: no such setting{_nearest(key, known)}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    says = _SAYS.get(first["type"], first["msg"])
    return f"{where}: {key}: {says}{more}"
