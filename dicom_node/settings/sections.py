"""The tables of a configuration file, each a frozen model of its own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from dicom_node.listener.admission import Operation
from dicom_node.results.profiles import (
    BUILT_IN,
    UNKNOWN,
    CodeScheme,
    Compressible,
    Kind,
    SlideKind,
    SrClass,
    Syntax,
)
from dicom_node.settings.values import (
    AETitle,
    Directory,
    destination_address,
    network,
    split_list,
    standard_view,
)
from dicom_node.tls import TlsFiles


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """The files of one side of secure connections: all three, or none."""

    certificate: Directory | None = Field(
        None, description="The node's certificate, PEM.", examples=["/etc/dicom-node/tls/node.pem"]
    )
    private_key: Directory | None = Field(
        None, description="Its private key, PEM, 0600.", examples=["/etc/dicom-node/tls/node.key"]
    )
    authority: Directory | None = Field(
        None,
        description="Certificates of the private authority that signs peers, PEM.",
        examples=["/etc/dicom-node/tls/authority.pem"],
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        given = [self.certificate, self.private_key, self.authority]
        if any(given) and not all(given):
            raise ValueError("certificate, private_key and authority belong together; give all three")
        return self

    @property
    def files(self) -> TlsFiles | None:
        """The files; None where none are configured."""
        if self.certificate is None or self.private_key is None or self.authority is None:
            return None
        return TlsFiles(self.certificate, self.private_key, self.authority)


class ListenerTlsSettings(TlsSettings):
    """The secure port, beside the plain one; off without its files."""

    port: int = Field(
        2762, ge=0, le=65535, description="Port of secure associations; 0 takes any.", examples=[2762]
    )


class DeliveryTlsSettings(TlsSettings):
    """Secure delivery."""

    destinations: Annotated[
        list[Annotated[str, AfterValidator(destination_address)]], NoDecode, BeforeValidator(split_list)
    ] = Field(
        [],
        description="Destinations that are reached over TLS alone; their certificates must name their hosts.",
        examples=[["PACS@pacs.example.org:2762"]],
    )

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.destinations and self.files is None:
            raise ValueError("certificate, private_key and authority are needed for secure destinations")
        return self


class CallerSettings(Section):
    """One application entity that is admitted."""

    title: AETitle = Field(description="Its AE title.", examples=["MAMMO1"])
    addresses: list[Annotated[str, AfterValidator(network)]] = Field(
        [],
        description="Addresses and networks that it may come from; empty: any.",
        examples=[["10.1.2.0/24"]],
    )
    operations: list[Operation] = Field(
        list(Operation),
        description="What it may do: store, echo, commit (ask for storage commitment, or report it).",
        examples=[["store", "echo"]],
    )
    commitment_address: Annotated[str, AfterValidator(destination_address)] | None = Field(
        None,
        description="Where it takes the answer to a storage commitment request whose association ended.",
        examples=["MAMMO1@10.1.2.3:104"],
    )
    certificate: str | None = Field(
        None,
        description="A name that its certificate carries; it is then admitted over TLS alone.",
        examples=["mammo1.example.org"],
    )
    user_identity: bool = Field(
        False, description="Whether it must give a user name and passcode, over TLS.", examples=[True]
    )


class ListenerSettings(Section):
    """The storage SCP."""

    plain: bool = Field(
        True, description="Accept associations without TLS on the node's port.", examples=[False]
    )

    processes: int = Field(
        1, ge=1, le=64, description="Processes that accept on the port together.", examples=[2]
    )
    max_associations: int = Field(
        25, ge=1, le=1000, description="Associations that one process serves at a time.", examples=[25]
    )
    max_associations_per_peer: int = Field(
        20, ge=1, le=1000, description="The same from one network address.", examples=[20]
    )
    max_waiting_jobs: int = Field(
        10_000,
        ge=1,
        description="Score jobs that wait; while there are more, associations are rejected as transient.",
        examples=[10_000],
    )
    max_pdu_bytes: int = Field(
        131072, ge=4096, le=1048576, description="Largest PDU offered, bytes.", examples=[131072]
    )
    max_object_bytes: int = Field(
        4 << 30, ge=1 << 20, description="Largest data set accepted, bytes.", examples=[4 << 30]
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
    allowed_ae_titles: Annotated[list[AETitle], NoDecode, BeforeValidator(split_list)] = Field(
        [],
        description="Calling AE titles that are admitted from anywhere, beside callers; where both are empty "
        "all are.",
        examples=[["MAMMO1", "MAMMO2"]],
    )
    require_user_identity: bool = Field(
        False, description="Every caller must give a user name and passcode, over TLS.", examples=[True]
    )
    tls: ListenerTlsSettings = ListenerTlsSettings()
    commitment: bool = Field(
        False,
        description="Answer storage commitment requests of callers for what they sent.",
        examples=[True],
    )
    minimum_free_bytes: int = Field(
        1 << 30,
        ge=0,
        description="Free disk space below which objects are turned away (A700).",
        examples=[1 << 30],
    )
    journal: bool = Field(
        True,
        description="Make objects of up to 1 MiB durable in a journal first, with one sync for many; "
        "otherwise each file is synced by itself.",
        examples=[False],
    )
    journal_bytes: int = Field(
        128 << 20,
        ge=32 << 20,
        le=8 << 30,
        description="Length of each listener process's journal. While half of it fills, the files that the "
        "other half holds are synced: so much comes in at once at its speed, and more at the disk's.",
        examples=[128 << 20],
    )
    quarantine_bytes: int = Field(
        512 << 20,
        ge=0,
        description="How long the objects may be together that were refused as faulty (A900, C000) and are "
        "kept for their sender's vendor; the oldest make room. 0 keeps none.",
        examples=[512 << 20],
    )


class CompletenessSettings(Section):
    """When a study revision is complete."""

    standard_views: Annotated[
        list[Annotated[str, AfterValidator(standard_view)]], NoDecode, BeforeValidator(split_list)
    ] = Field(
        ["R CC", "R MLO", "L CC", "L MLO"],
        description="Views that complete a study at once, For Presentation; empty switches the rule off.",
        examples=[["R CC", "R MLO", "L CC", "L MLO"]],
    )
    quiet_period_s: float = Field(
        60, gt=0, description="Seconds without a new instance that complete a study anyway.", examples=[60]
    )


class JobSettings(Section):
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
    stop_deadline_s: float = Field(
        20,
        gt=0,
        le=25,  # 'serve' kills what is left after 30
        description="Seconds that a worker told to stop has for the job in hand, before it gives it back.",
        examples=[20],
    )


class ScoringSettings(Section):
    """The score workers."""

    workers: int = Field(
        1, ge=0, le=64, description="Score processes that serve starts; one per GPU.", examples=[1]
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where networks run.", examples=["auto"]
    )
    backend: Literal["torch", "openvino", "openvino-bf16"] = Field(
        "torch",
        description="What runs networks on the CPU; another than torch only for bundles on which it agrees.",
        examples=["openvino-bf16"],
    )
    threads: int = Field(
        1,
        ge=1,
        description="Threads of a forward pass on the CPU; more only where that many cores are always free.",
        examples=[4],
    )
    shadowed_devices: Annotated[list[str], NoDecode, BeforeValidator(split_list)] = Field(
        [],
        description="Scanner models, or MODEL/SOFTWARE, whose studies are scored and kept, but not reported.",
        examples=[["SELENIA DIMENSIONS"]],
    )
    recycle_after_jobs: int = Field(
        0,
        ge=0,
        description="Jobs after which a score worker ends itself, to be started afresh; 0: never.",
        examples=[1000],
    )
    recycle_above_bytes: int = Field(
        0,
        ge=0,
        description="Resident memory above which a score worker ends itself after a job, once it lived for a "
        "minute, bytes; 0: never.",
        examples=[6 << 30],
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


class DeliverySettings(Section):
    """The deliver workers."""

    workers: int = Field(1, ge=0, le=64, description="Deliver processes that serve starts.", examples=[1])
    connect_timeout_s: float = Field(5, gt=0, description="Seconds to open a connection.", examples=[5])
    acse_timeout_s: float = Field(15, gt=0, description="Seconds to negotiate an association.", examples=[15])
    dimse_timeout_s: float = Field(30, gt=0, description="Seconds to wait for a response.", examples=[30])
    refused_tries: int = Field(
        3,
        ge=1,
        le=100,
        description="Times that a destination must refuse an object by a status until a person must look; "
        "1 believes the first.",
        examples=[1],
    )
    commitment_wait_s: float = Field(
        5,
        gt=0,
        le=300,
        description="Seconds that the report may take on the association of a storage commitment request.",
        examples=[5],
    )
    commitment_ask_again_s: float = Field(
        3600,
        gt=0,
        description="Seconds without a report after which storage commitment is asked again; doubled each "
        "time, up to a day.",
        examples=[3600],
    )
    tls: DeliveryTlsSettings = DeliveryTlsSettings()


class ProfileSettings(Section):
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
    transfer_syntaxes: dict[Compressible, Syntax] = Field(
        {},
        description="Compression by kind; the native object is sent where it is not accepted.",
        examples=[{"secondary_capture": "jpeg2000", "fractional_segmentation": "rle"}],
    )
    seg_reference: bool = Field(
        False,
        description="Name lesion segments in the measurement report instead of coordinates; not for OHIF.",
        examples=[True],
    )
    slide_kinds: list[SlideKind] = Field(
        list(BUILT_IN[UNKNOWN].slide_kinds),
        description="Kinds of objects of studies of slides.",
        examples=[["slide_report", "text_report"]],
    )
    withdraws: bool = Field(
        False, description="Withdraw superseded results by a rejection note (IHE IOCM).", examples=[True]
    )


class TrainingSettings(Section):
    """The train workers."""

    workers: int = Field(
        1, ge=0, le=8, description="Train processes that serve starts; 0 where nobody trains.", examples=[1]
    )


class RetentionSettings(Section):
    """How long files stay; what the database knows of them, and the audit trail, do so all the same."""

    received_days: int | None = Field(
        None,
        ge=1,
        description="Days after which the files of a study's received objects are removed, where all work on "
        "it is done; without it they stay.",
        examples=[400],
    )
    results_days: int | None = Field(
        None,
        ge=1,
        description="Days after which the files of a study's results are removed, where its destinations "
        "have them and all work on it is done; without it they stay.",
        examples=[400],
    )


class MetricsSettings(Section):
    """Numbers for Prometheus; off without a port."""

    host: str = Field(
        "127.0.0.1", description="Address on which scrapes are answered.", examples=["10.1.2.3"]
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Its port; anybody who reaches it may ask.", examples=[9108]
    )


class AuditSyslogSettings(TlsSettings):
    """The syslog sink (ATNA audit repository) of PS3.15 A.5 audit messages; off without a host."""

    host: str | None = Field(None, description="Where the audit messages go.", examples=["arr.example.org"])
    port: int | None = Field(
        None, ge=1, le=65535, description="Its port; default: 6514 for TLS, 514 for UDP.", examples=[6514]
    )
    transport: Literal["tls", "udp"] = Field(
        "tls",
        description="RFC 5425; or RFC 5426, which loses messages unseen and shows patient ids to all.",
        examples=["tls"],
    )
    wait_for_close: bool = Field(
        True,
        description="Count messages as taken only when the sink answers close_notify (RFC 5425 4.4).",
        examples=[False],
    )

    @model_validator(mode="after")
    def _check_secure(self) -> Self:
        if self.host is not None and self.transport == "tls" and self.files is None:
            raise ValueError('certificate, private_key and authority are needed, or transport = "udp"')
        return self

    @property
    def effective_port(self) -> int:
        """The port, where none is given that of the transport."""
        return self.port or (6514 if self.transport == "tls" else 514)


class AuditSettings(Section):
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
    retention_years: int = Field(
        10, ge=6, description="Years for which 'audit prune' removes no event.", examples=[10]
    )
    syslog: AuditSyslogSettings = AuditSyslogSettings()
