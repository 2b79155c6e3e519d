"""From settings to what lets peers in, and to what shows this node to others."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from ipaddress import ip_network

from db.session import Database
from dicom_node.audit_messages.syslog import Sink, TlsSink, UdpSink
from dicom_node.broker_address import is_insecure
from dicom_node.delivery.destination import Destination
from dicom_node.errors import DestinationUnavailableError, SettingsError
from dicom_node.listener.accounts import Accounts
from dicom_node.listener.admission import Admission, Caller
from dicom_node.settings import Settings
from dicom_node.settings.sections import CallerSettings
from dicom_node.tls import ServerTls, TlsFiles

TlsFor = Callable[[Destination], ssl.SSLContext | None]


def admission(settings: Settings) -> Admission:
    """Return who may open associations."""
    callers = [_caller(each) for each in settings.callers]
    callers += [Caller(title) for title in settings.listener.allowed_ae_titles]
    return Admission(
        settings.ae_title,
        callers=callers or None,
        require_called_ae_title=settings.listener.require_called_ae_title,
        needs_user=settings.listener.require_user_identity,
        verify_user=Accounts(settings.accounts_file).verify,
    )


def listener_tls(settings: Settings) -> ServerTls | None:
    """Return the certificates of the secure port; None where it is off.

    Raises
    ------
    SettingsError
        If the files cannot be used.
    """
    files = settings.listener.tls.files
    return None if files is None else ServerTls(files)


def tls_for(settings: Settings) -> TlsFor:
    """Return what gives each destination its TLS context, None for those that are reached without.

    The files are read at each association: new certificates need no restart, and results wait for files that
    cannot be used, as they wait for a destination that is away.
    """
    secure, files = frozenset(settings.delivery.tls.destinations), settings.delivery.tls.files

    def context(destination: Destination) -> ssl.SSLContext | None:
        if files is None or str(destination) not in secure:
            return None
        try:
            return files.client_context()
        except SettingsError as error:
            raise DestinationUnavailableError(f"not sent without TLS: {error}") from error

    return context


def tls_files(settings: Settings) -> tuple[tuple[str, TlsFiles], ...]:
    """Return the certificates in use by the setting that names them."""
    named = (
        ("listener.tls", settings.listener.tls.files),
        ("delivery.tls", settings.delivery.tls.files),
        ("audit.syslog", settings.audit.syslog.files),
    )
    return tuple((name, files) for name, files in named if files is not None)


def audit_sink(settings: Settings) -> Sink | None:
    """Return where audit messages go; None where no sink is configured.

    As for destinations, messages wait for files that cannot be used.
    """
    syslog = settings.audit.syslog
    if syslog.host is None:
        return None
    files = syslog.files
    if syslog.transport == "udp" or files is None:
        return UdpSink(syslog.host, syslog.effective_port)
    return TlsSink(
        syslog.host, syslog.effective_port, files.client_context, wait_for_close=syslog.wait_for_close
    )


def audit_exceptions(settings: Settings, database: Database, actor: str) -> None:
    """Write into the audit trail what this node does without although the rules want it."""
    url = settings.broker_url
    if url is not None and is_insecure(url.get_secret_value()):
        with database.transaction(actor) as tx:
            tx.audit("security.exception_allowed", detail={"setting": "allow_insecure_redis"})


def _caller(configured: CallerSettings) -> Caller:
    return Caller(
        configured.title,
        tuple(ip_network(each) for each in configured.addresses),
        frozenset(configured.operations),
        configured.certificate,
        configured.user_identity,
    )
