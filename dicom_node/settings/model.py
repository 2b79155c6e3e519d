"""All settings of a node together, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dicom_node.broker_address import is_insecure
from dicom_node.delivery.destination import Destination
from dicom_node.results.profiles import BUILT_IN, Profile, Route, profile_named, split_route
from dicom_node.settings.sections import (
    AuditSettings,
    CallerSettings,
    CompletenessSettings,
    DeliverySettings,
    JobSettings,
    ListenerSettings,
    MetricsSettings,
    ProfileSettings,
    RetentionSettings,
    ScoringSettings,
    TrainingSettings,
)
from dicom_node.settings.values import (
    COMMITMENT,
    AETitle,
    Directory,
    database_address,
    destination_text,
    own_profile_name,
    split_list,
    utc_offset,
)

ENVIRONMENT_PREFIX = "DICOM_NODE_"


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
        list[Annotated[str, BeforeValidator(destination_text)]], NoDecode, BeforeValidator(split_list)
    ] = Field(
        [],
        description="Where results go: AE@HOST:PORT, with /PROFILE to choose which results, and +commitment "
        "to ask for storage commitment; or tables of address, profile and commitment.",
        examples=[["PACS@pacs.example.org:104+commitment", "OHIF@10.0.0.7:4242/ohif"]],
    )
    callers: list[CallerSettings] = Field(
        [],
        description="Who may open associations: title, addresses, operations, certificate, user_identity, "
        "commitment_address.",
        examples=[[{"title": "MAMMO1", "addresses": ["10.1.2.0/24"]}]],
    )
    profiles: dict[Annotated[str, AfterValidator(own_profile_name)], ProfileSettings] = Field(
        {},
        description="Profiles of your own by name, beside " + ", ".join(BUILT_IN) + ".",
        examples=[{"mysite": {"kinds": ["text_report"]}}],
    )
    tasks: Annotated[list[str], NoDecode, BeforeValidator(split_list)] = Field(
        ["mammography_malignancy"],
        description="Tasks asked of complete studies.",
        examples=[["mammography_malignancy"]],
    )
    database_url: Annotated[SecretStr, AfterValidator(database_address)] | None = Field(
        None,
        description="PostgreSQL URL; without it the node uses SQLite in DATA_DIR/node.db.",
        examples=["postgresql+psycopg://node:secret@db/node"],
    )
    broker_url: SecretStr | None = Field(
        None,
        description="Redis URL for workers on several machines; without it workers look into the database.",
        examples=["rediss://:secret@redis:6379/0"],
    )
    allow_insecure_redis: bool = Field(
        False,
        description="Use a Redis of another machine without a password or TLS; audited at each start.",
        examples=[True],
    )
    timezone_offset: Annotated[str, AfterValidator(utc_offset)] = Field(
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
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _check_routes(self) -> Settings:
        try:
            addresses = [str(route.destination) for route in self.routes]
        except ValueError as error:
            raise ValueError(f"destinations: {error}") from None
        reached = [*addresses, *self.commitment_addresses.values()]
        unknown = [each for each in self.delivery.tls.destinations if each not in reached]
        if unknown:
            raise ValueError(f"delivery.tls.destinations: {unknown[0]} is none of the destinations")
        if not self.listener.plain and self.listener.tls.files is None:
            raise ValueError("listener.plain: without it the node needs the files of listener.tls")
        if twice := [address for address in addresses if addresses.count(address) > 1]:
            raise ValueError(f"destinations: {twice[0]} is named twice; give it one profile of its own")
        return self

    @model_validator(mode="after")
    def _check_broker(self) -> Settings:
        url = self.broker_url
        if url is None or self.allow_insecure_redis or not is_insecure(url.get_secret_value()):
            return self
        raise ValueError(
            "broker_url: a Redis of another machine without a password or TLS lets others stop the workers; "
            "give it both (rediss://:SECRET@HOST:6379/0), or set allow_insecure_redis = true"
        )

    @model_validator(mode="after")
    def _check_secure_callers(self) -> Settings:
        wants_user = self.listener.require_user_identity or any(each.user_identity for each in self.callers)
        wants_certificate = any(each.certificate for each in self.callers)
        if (wants_user or wants_certificate) and self.listener.tls.files is None:
            raise ValueError(
                "listener.tls: callers with a certificate or a user identity come over TLS alone; give "
                "certificate, private_key and authority"
            )
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
        return f"sqlite:///{self.database_file}"

    @property
    def database_file(self) -> Path:
        """File of the embedded database, which is used without a URL."""
        return self.data_dir / "node.db"

    @property
    def spool_dir(self) -> Path:
        """Folder of received objects."""
        return self.data_dir / "spool"

    @property
    def journal_dir(self) -> Path:
        """Folder of what makes received objects durable until their files are."""
        return self.data_dir / "journal"

    @property
    def quarantine_dir(self) -> Path:
        """Folder of objects that were refused as faulty."""
        return self.data_dir / "quarantine"

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
    def audit_key_file(self) -> Path:
        """File of the keys that chain the audit trail."""
        return self.key_dir / "audit.key"

    @property
    def checkpoint_key_file(self) -> Path:
        """File of the key that signs checkpoints."""
        return self.key_dir / "checkpoint.key"

    @property
    def checkpoint_dir(self) -> Path:
        """Folder of the audit checkpoints."""
        return self.audit.checkpoint_dir or self.data_dir / "checkpoints"

    @property
    def accounts_file(self) -> Path:
        """File of the users that associations may name."""
        return self.key_dir / "accounts.json"

    @property
    def default_zone(self) -> timezone:
        """The zone of result objects whose source states none."""
        minutes = int(self.timezone_offset[1:3]) * 60 + int(self.timezone_offset[3:])
        return timezone(timedelta(minutes=-minutes if self.timezone_offset[0] == "-" else minutes))

    @property
    def committing_destinations(self) -> frozenset[str]:
        """The destinations that are asked for storage commitment, as ``AE@HOST:PORT``."""
        asked = (text.removesuffix(COMMITMENT) for text in self.destinations if text.endswith(COMMITMENT))
        return frozenset(str(Destination.parse(split_route(text)[0])) for text in asked)

    @property
    def commitment_addresses(self) -> dict[str, str]:
        """Where callers take answers to storage commitment requests, by their AE title."""
        return {each.title: each.commitment_address for each in self.callers if each.commitment_address}

    @property
    def uses_commitment(self) -> bool:
        """Whether the node asks for storage commitment, or answers for it."""
        return bool(self.committing_destinations) or self.listener.commitment

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
                transfer_syntaxes={str(kind): str(s) for kind, s in section.transfer_syntaxes.items()},
                seg_reference=section.seg_reference,
                slide_kinds=tuple(section.slide_kinds),
            )
            for name, section in self.profiles.items()
        ]
        split = (split_route(text.removesuffix(COMMITMENT)) for text in self.destinations)
        return tuple(
            Route(Destination.parse(address), profile_named(profile, own)) for address, profile in split
        )
