"""Every setting in one typed place: defaults, then a TOML file, then ``DICOM_NODE_*``, then flags.

Settings are read once per process, by the command line; below it functions take what they need. ``serve`` and
``listen`` remember the flags that they were started with in ``DATA_DIR/node.toml``, which ranks just above
the defaults, so that every other command finds the same node by ``--data-dir`` alone.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dicom_node.delivery.destination import Destination, checked_ae_title
from dicom_node.errors import SettingsError
from dicom_node.results.profiles import (
    BUILT_IN,
    UNKNOWN,
    CodeScheme,
    Kind,
    Profile,
    Route,
    SrClass,
    profile_named,
    split_route,
)

ENVIRONMENT_PREFIX = "DICOM_NODE_"
REMEMBERED_FILE = "node.toml"
# What --config reads when it is not given, and the tests' own variables.
_OTHER_VARIABLES = (f"{ENVIRONMENT_PREFIX}CONFIG", f"{ENVIRONMENT_PREFIX}TEST_")
_VIEW = re.compile(r"([RL]) (CC|MLO)")
_OFFSET = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def _split(value: Any) -> Any:
    """Accept a comma-separated list where an environment variable gives one string."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _view(value: str) -> str:
    if not _VIEW.fullmatch(value):
        raise ValueError(f"{value!r} is not a standard view")
    return value


def _destination(value: Any) -> Any:
    """Read a destination: text, or a table of address and profile; keep it as ``AE@HOST:PORT/PROFILE``."""
    if isinstance(value, Mapping):
        if not {"address"} <= set(value) <= {"address", "profile"}:
            raise ValueError('a destination is a table of address and profile, or "AE@HOST:PORT/PROFILE"')
        value = "/".join(str(value[key]) for key in ("address", "profile") if key in value)
    if not isinstance(value, str):
        raise ValueError("a destination is text or a table")
    address, profile = split_route(value)
    text = str(Destination.parse(address))
    return text if profile == UNKNOWN else f"{text}/{profile}"


def _profile_name(value: str) -> str:
    if not _PROFILE_NAME.fullmatch(value) or value in BUILT_IN:
        raise ValueError(
            f"{value!r} cannot name a profile of your own: lower-case letters, digits, _ and -, and none of "
            f"{', '.join(BUILT_IN)}"
        )
    return value


def _offset(value: str) -> str:
    if not _OFFSET.fullmatch(value):
        raise ValueError(f"{value!r} is not an offset from UTC")
    return value


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


AETitle = Annotated[str, AfterValidator(checked_ae_title)]
Directory = Annotated[Path, AfterValidator(_absolute)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListenerSettings(_Section):
    """The storage SCP."""

    max_associations: int = Field(
        25, ge=1, le=1000, description="Associations served at a time.", examples=[25]
    )
    max_pdu_bytes: int = Field(
        131072, ge=4096, le=1048576, description="Largest PDU offered, bytes.", examples=[131072]
    )
    max_object_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Largest data set accepted, bytes.", examples=[1 << 30]
    )
    acse_timeout_s: float = Field(
        10, gt=0, description="Seconds for an association request or release.", examples=[10]
    )
    message_timeout_s: float = Field(
        300, gt=0, description="Seconds from the first to the last byte of one object.", examples=[300]
    )
    network_timeout_s: float = Field(
        60, gt=0, description="Seconds that an idle association lives.", examples=[60]
    )
    require_called_ae_title: bool = Field(
        False, description="Reject peers that call the node by another AE title.", examples=[True]
    )
    allowed_ae_titles: Annotated[list[AETitle], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Calling AE titles that may store; empty admits all.", examples=[["MAMMO1", "MAMMO2"]]
    )
    minimum_free_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Free disk space below which objects are turned away (A700).",
        examples=[1 << 30],
    )


class CompletenessSettings(_Section):
    """When a study revision is complete."""

    standard_views: Annotated[
        list[Annotated[str, AfterValidator(_view)]], NoDecode, BeforeValidator(_split)
    ] = Field(
        ["R CC", "R MLO", "L CC", "L MLO"],
        description="Views that complete a study at once, For Presentation; empty switches the rule off.",
        examples=[["R CC", "R MLO", "L CC", "L MLO"]],
    )
    quiet_period_s: float = Field(
        60, gt=0, description="Seconds without a new instance that complete a study anyway.", examples=[60]
    )


class JobSettings(_Section):
    """How work is claimed and tried again."""

    lease_s: float = Field(
        60, ge=1, description="Seconds after which a silent worker loses its job.", examples=[60]
    )
    attempts: int = Field(5, ge=1, description="Attempts until a job is failed.", examples=[5])
    backoff_max_s: float = Field(
        300, ge=1, description="Longest wait between attempts, seconds.", examples=[300]
    )
    hard_limit_s: float = Field(
        900,
        ge=10,
        description="Seconds after which a worker that still holds one job ends itself; none for training.",
        examples=[900],
    )


class ScoringSettings(_Section):
    """The score workers."""

    workers: int = Field(
        1, ge=0, le=64, description="Score processes that serve starts; one per GPU.", examples=[1]
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run.", examples=["auto"]
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads of a forward pass on the CPU; more only where that many cores are always free.",
        examples=[4],
    )
    decode_memory_bytes: int = Field(
        4 << 30,
        ge=1 << 28,
        description="Address space of the process that decodes pixels.",
        examples=[4 << 30],
    )
    decode_cpu_s: int = Field(
        60, ge=1, description="CPU seconds allowed for decoding one image.", examples=[60]
    )


class DeliverySettings(_Section):
    """The deliver workers."""

    workers: int = Field(1, ge=0, le=64, description="Deliver processes that serve starts.", examples=[1])
    connect_timeout_s: float = Field(5, gt=0, description="Seconds to open a connection.", examples=[5])
    acse_timeout_s: float = Field(15, gt=0, description="Seconds to negotiate an association.", examples=[15])
    dimse_timeout_s: float = Field(30, gt=0, description="Seconds to wait for a response.", examples=[30])


class ProfileSettings(_Section):
    """A site's own profile: which results a destination gets."""

    kinds: list[Kind] = Field(
        list(BUILT_IN[UNKNOWN].kinds),
        description="Kinds of objects; one that has nothing to say of a study is not sent.",
        examples=[["text_report", "measurement_report"]],
    )
    sr_class: SrClass = Field(
        "auto",
        description="Class of the TID 1500 report: Comprehensive 3D SR, Comprehensive SR, both, or the first "
        "that the destination accepts.",
        examples=["comp"],
    )
    code_scheme: CodeScheme = Field(
        "SCT", description="Codes of the Mammography CAD SR; SRT for old workstations.", examples=["SRT"]
    )
    picture: bool = Field(
        False,
        description="Add a presentation state (bundles that localise) or a secondary capture (others).",
        examples=[True],
    )
    withdraws: bool = Field(
        False, description="Withdraw superseded results by a rejection note (IHE IOCM).", examples=[True]
    )


class TrainingSettings(_Section):
    """The train workers."""

    workers: int = Field(
        1, ge=0, le=8, description="Train processes that serve starts; 0 where nobody trains.", examples=[1]
    )


class AuditSettings(_Section):
    """The audit trail."""

    key_dir: Directory | None = Field(
        None,
        description="Folder of the audit keys, 0700; default: DATA_DIR/keys.",
        examples=["/etc/dicom-node/keys"],
    )
    checkpoint_dir: Directory | None = Field(
        None,
        description="Folder of the signed checkpoints, best on another disk; default: DATA_DIR/checkpoints.",
        examples=["/mnt/audit/dicom-node"],
    )
    checkpoint_events: int = Field(1000, ge=1, description="Events between checkpoints.", examples=[1000])
    checkpoint_period_s: float = Field(300, gt=0, description="Seconds between checkpoints.", examples=[300])


class Settings(BaseSettings):
    """All settings of a node; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )
    lower_sources: ClassVar[tuple[Mapping[str, Any], ...]] = ()

    data_dir: Directory = Field(
        Path("~/.local/share/dicom-node"),
        validate_default=True,
        description="Where the node keeps its database, spool, results, keys and bundles.",
        examples=["/var/lib/dicom-node"],
    )
    ae_title: AETitle = Field("DICOM_NODE", description="The node's AE title.", examples=["DICOM_NODE"])
    host: str = Field("0.0.0.0", description="Address on which the listener accepts.", examples=["0.0.0.0"])
    port: int = Field(
        11112, ge=0, le=65535, description="Port of the listener; 0 takes any.", examples=[11112]
    )
    destinations: Annotated[
        list[Annotated[str, BeforeValidator(_destination)]], NoDecode, BeforeValidator(_split)
    ] = Field(
        [],
        description="Where results go: AE@HOST:PORT, with /PROFILE to choose which results.",
        examples=[["PACS@pacs.example.org:104", "OHIF@10.0.0.7:4242/ohif"]],
    )
    profiles: dict[Annotated[str, AfterValidator(_profile_name)], ProfileSettings] = Field(
        {},
        description="Profiles of your own by name, beside " + ", ".join(BUILT_IN) + ".",
        examples=[{"mysite": {"kinds": ["text_report"]}}],
    )
    tasks: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        ["mammography_malignancy"],
        description="Tasks asked of complete studies.",
        examples=[["mammography_malignancy"]],
    )
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL URL; without it the node uses SQLite in DATA_DIR/node.db.",
        examples=["postgresql+psycopg://node:secret@db/node"],
    )
    broker_url: SecretStr | None = Field(
        None,
        description="Redis URL for workers on several machines; without it workers look into the database.",
        examples=["redis://:secret@redis:6379/0"],
    )
    timezone_offset: Annotated[str, AfterValidator(_offset)] = Field(
        "+0000",
        description="Offset from UTC of result objects whose source states none.",
        examples=["+0100"],
    )
    institution: str = Field(
        "", max_length=64, description="Institution name in result objects.", examples=["General"]
    )
    listener: ListenerSettings = ListenerSettings()
    completeness: CompletenessSettings = CompletenessSettings()
    jobs: JobSettings = JobSettings()
    scoring: ScoringSettings = ScoringSettings()
    delivery: DeliverySettings = DeliverySettings()
    training: TrainingSettings = TrainingSettings()
    audit: AuditSettings = AuditSettings()

    @model_validator(mode="after")
    def _check_routes(self) -> Settings:
        try:
            addresses = [str(route.destination) for route in self.routes]
        except ValueError as error:
            raise ValueError(f"destinations: {error}") from None
        if twice := [address for address in addresses if addresses.count(address) > 1]:
            raise ValueError(f"destinations: {twice[0]} is named twice; give it one profile of its own")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank flags over environment over files."""
        files = (InitSettingsSource(settings_cls, dict(source)) for source in cls.lower_sources)
        return (init_settings, env_settings, *files)

    @property
    def effective_database_url(self) -> str:
        """The database's URL, with its password."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'node.db'}"

    @property
    def spool_dir(self) -> Path:
        """Folder of received objects."""
        return self.data_dir / "spool"

    @property
    def results_dir(self) -> Path:
        """Folder of result objects."""
        return self.data_dir / "results"

    @property
    def bundles_dir(self) -> Path:
        """Folder of the bundle store."""
        return self.data_dir / "bundles"

    @property
    def key_dir(self) -> Path:
        """Folder of the audit keys."""
        return self.audit.key_dir or self.data_dir / "keys"

    @property
    def checkpoint_dir(self) -> Path:
        """Folder of the audit checkpoints."""
        return self.audit.checkpoint_dir or self.data_dir / "checkpoints"

    @property
    def default_zone(self) -> timezone:
        """The zone of result objects whose source states none."""
        minutes = int(self.timezone_offset[1:3]) * 60 + int(self.timezone_offset[3:])
        return timezone(timedelta(minutes=-minutes if self.timezone_offset[0] == "-" else minutes))

    @property
    def parsed_destinations(self) -> tuple[Destination, ...]:
        """The destinations as values."""
        return tuple(route.destination for route in self.routes)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The destinations with their profiles."""
        own = [
            Profile(
                name,
                tuple(section.kinds),
                sr_class=section.sr_class,
                code_scheme=section.code_scheme,
                picture=section.picture,
                withdraws=section.withdraws,
            )
            for name, section in self.profiles.items()
        ]
        split = (split_route(text) for text in self.destinations)
        return tuple(
            Route(Destination.parse(address), profile_named(profile, own)) for address, profile in split
        )


def load(*, config_file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings of this process.

    Parameters
    ----------
    config_file : pathlib.Path, optional
        A TOML file; without it the file that ``serve`` or ``listen`` was started with counts.
    flags : mapping, optional
        Values from the command line by setting name; they rank highest.

    Raises
    ------
    SettingsError
        Naming the setting, what is wrong with it, and an example of a right value.
    """
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    _refuse_unknown_variables(os.environ)
    file = _read_toml(config_file) if config_file else {}
    remembered = _read_remembered(_data_dir(flags, file))
    if not config_file and "config_file" in remembered:
        file = _read_toml(Path(remembered["config_file"]))
    remembered.pop("config_file", None)
    sources = (file, remembered)
    layered = type("Settings", (Settings,), {"lower_sources": sources, "__module__": __name__})
    try:
        settings: Settings = layered(**flags)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    return settings


def remember(settings: Settings, *, flags: Mapping[str, Any], config_file: Path | None) -> None:
    """Keep the flags that a node was started with, for the commands that follow and for its next start.

    What is not given this time stays as it was: a restart without flags must not lose the destinations. Only
    the node's name and addresses are kept, never a secret.

    Parameters
    ----------
    settings : Settings
        Whose data directory keeps them.
    flags : mapping
        Values from the command line by setting name; None where a flag was not given.
    config_file : pathlib.Path or None
        The TOML file of the start.
    """
    kept = _read_remembered(settings.data_dir)
    kept.update({name: value for name, value in flags.items() if value is not None and name != "data_dir"})
    if config_file:
        kept["config_file"] = str(config_file.absolute())
    path = settings.data_dir / REMEMBERED_FILE
    part = path.with_suffix(".part")
    part.write_text(
        "# Written by dicom-node at its start; edit the configuration file instead.\n" + tomli_w.dumps(kept)
    )
    part.replace(path)


def _data_dir(flags: Mapping[str, Any], file: Mapping[str, Any]) -> Path:
    default = Settings.model_fields["data_dir"].default
    stated = flags.get("data_dir") or os.environ.get(f"{ENVIRONMENT_PREFIX}DATA_DIR") or file.get("data_dir")
    return _absolute(Path(stated or default))


def _read_remembered(data_dir: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        return _read_toml(data_dir / REMEMBERED_FILE)
    return {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        if path.name == REMEMBERED_FILE:
            raise
        raise SettingsError(f"there is no configuration file {path}; check --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not a readable TOML file: {error}") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Refuse a misspelt variable: silence would run the node with a default instead."""
    for variable in environment:
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith(_OTHER_VARIABLES):
            continue
        name, _, inner = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        field = Settings.model_fields.get(name)
        section = field.annotation if field and isinstance(field.annotation, type) else None
        names = set(Settings.model_fields)
        if field is not None and inner:
            names = set(section.model_fields) if section and issubclass(section, BaseModel) else set()
            name = inner
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0].upper()}?" if near else ""
            raise SettingsError(f"the environment variable {variable} names no setting{hint}")


def _explain(error: ValidationError) -> str:
    """Say for each wrong setting its name, the value's problem, and an example."""
    lines = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        path = [str(part) for part in problem["loc"] if not isinstance(part, int)]
        name = ".".join(path)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such setting; 'dicom-node config show' lists all")
            continue
        example = _example(path)
        message = problem["msg"].removeprefix("Value error, ")
        has_example = example is None or "for example" in message
        if not path:
            lines.append(message)
            continue
        lines.append(
            f"{name}: {message}" + ("" if has_example else f"; for example {path[-1]} = {example!r}")
        )
    return "wrong setting\n  " + "\n  ".join(lines)


def _example(path: list[str]) -> Any:
    model: type[BaseModel] = Settings
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return None
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
            continue
        return field.examples[0] if field.examples else None
    return None
