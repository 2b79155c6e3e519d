"""D1 to D5: who comes in over TLS, with real certificates of a private authority made for each test."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset

from dicom_node.errors import SettingsError
from dicom_node.listener.accounts import Accounts
from dicom_node.listener.admission import Admission, Caller, Operation
from dicom_node.listener.limits import ListenerLimits
from dicom_node.tls import CIPHER_SUITES, ServerTls, TlsFiles
from tests.listening import (
    EXPLICIT_LITTLE,
    MG_FOR_PRESENTATION,
    Node,
    encoded,
    listening,
    mammogram,
    stored_dataset,
    uid_of,
)
from tests.programs import needs
from tests.simulators.certificates import Authority
from tests.simulators.raw_scu import (
    IMPLICIT_LITTLE,
    VERIFICATION,
    AssociationEndedError,
    AssociationRejectedError,
)

PASSCODE = "a passcode of a machine"
# For a handshake, where its end is waited for; those that are let in would take eight times that in a row.
SHORT_S = 4.0
STALLED = 20
TRICKLE_S = 0.1
PATIENCE_S = 60


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def node(tmp_path: Path, authority: Authority) -> Iterator[Node]:
    """A listener on a secure port."""
    files = authority.issue("node", "127.0.0.1")
    with listening(tmp_path, tls=ServerTls(files), acse_timeout_s=PATIENCE_S) as node:
        yield node


@pytest.fixture
def hurried(tmp_path: Path, authority: Authority) -> Iterator[Node]:
    """A listener on a secure port, with a short deadline for handshakes."""
    files = authority.issue("node", "127.0.0.1")
    with listening(tmp_path, tls=ServerTls(files), acse_timeout_s=SHORT_S, max_silent_connections=8) as node:
        yield node


def refused(node: Node, context: ssl.SSLContext | None) -> str:
    """The reason in the audit event of a connection that must not become an association."""
    before = len(node.events)
    node.event_happened.clear()
    with pytest.raises((OSError, AssociationEndedError)):
        node.scu(VERIFICATION, IMPLICIT_LITTLE, tls=context)
    assert node.event_happened.wait(PATIENCE_S)
    ((action, detail),) = node.events[before:]
    assert action == "security.tls_refused"
    assert set(detail) == {"peer_address", "reason"}
    assert node.stored_nothing()
    return str(detail["reason"])


def assert_good_peer_is_served(node: Node, context: ssl.SSLContext) -> None:
    """A certified peer at another address gets its C-ECHO before any stalled handshake ends."""
    started = time.monotonic()
    with node.scu(VERIFICATION, IMPLICIT_LITTLE, tls=context, source="127.0.0.2") as scu:
        assert scu.echo() == 0x0000
        scu.release()
    assert time.monotonic() - started < SHORT_S * 3 / 4


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_d1_an_object_is_stored_over_each_allowed_version(
    node: Node, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.issue("scanner").client_context()
    context.minimum_version = context.maximum_version = version
    dataset = mammogram(PixelData=bytes(range(256)) * 4096, Rows=1024, Columns=512)
    with node.scu(tls=context) as scu:
        assert isinstance(scu.socket, ssl.SSLSocket)
        cipher = scu.socket.cipher()
        assert cipher is not None
        assert cipher[0] in (*CIPHER_SUITES, "TLS_AES_256_GCM_SHA384")
        assert scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset)) == 0x0000
        scu.release()
    assert node.content().endswith(encoded(dataset))
    assert stored_dataset(node.content()).SOPInstanceUID == dataset.SOPInstanceUID


def test_d1_tls_1_3_is_chosen_where_the_peer_has_it(node: Node, authority: Authority) -> None:
    with node.scu(tls=authority.issue("scanner").client_context()) as scu:
        assert isinstance(scu.socket, ssl.SSLSocket)
        assert scu.socket.version() == "TLSv1.3"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_d1_older_versions_are_refused(node: Node, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.issue("scanner").client_context()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert "version" in refused(node, context) or "protocol" in refused(node, context)


@pytest.mark.parametrize("suite", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-SHA384"])
def test_d1_a_peer_with_weak_cipher_suites_alone_is_refused(
    node: Node, authority: Authority, suite: str
) -> None:
    context = authority.issue("scanner").client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    assert "cipher" in refused(node, context)


def test_d1_a_peer_may_neither_renegotiate_nor_compress(node: Node, authority: Authority) -> None:
    files = authority.issue("scanner")
    address = ["-connect", f"127.0.0.1:{node.port}", "-tls1_2"]
    own = ["-cert", files.certificate, "-key", files.private_key, "-CAfile", files.authority, "-comp"]
    done = subprocess.run(
        ["openssl", "s_client", *address, *own],
        input="R\n",  # "renegotiate"
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Compression: NONE" in done.stdout
    assert "Verify return code: 0" in done.stdout
    assert "RENEGOTIATING" in done.stderr
    assert "no renegotiation" in done.stderr


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("expired", "expired"),
        ("stranger", "unable to get local issuer certificate"),
        ("itself", "self-signed certificate"),
        ("nobody", "peer did not return a certificate"),
    ],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_d2_a_peer_without_a_good_certificate_is_refused_and_audited(
    node: Node, authority: Authority, tmp_path: Path, who: str, words: str, version: ssl.TLSVersion
) -> None:
    good = authority.issue("scanner").client_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.path)
    context.minimum_version = context.maximum_version = version
    made = {
        "expired": lambda: authority.issue("expired", days=-1),
        "stranger": lambda: Authority(tmp_path / "other", "other").issue("stranger"),
        "itself": lambda: authority.issue("itself", signs_itself=True),
    }
    if who in made:
        files = made[who]()
        context.load_cert_chain(files.certificate, files.private_key)

    assert words in refused(node, context)
    assert_good_peer_is_served(node, good)


def test_d2_a_peer_can_tell_the_node_from_an_impostor(node: Node, tmp_path: Path) -> None:
    context = Authority(tmp_path / "other", "other").issue("scanner").client_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        node.scu(tls=context)


def test_d2_new_certificates_are_taken_without_a_restart_and_old_associations_go_on(
    node: Node, authority: Authority, tmp_path: Path
) -> None:
    def serial(context: ssl.SSLContext) -> object:
        with node.scu(VERIFICATION, IMPLICIT_LITTLE, tls=context) as scu:
            assert isinstance(scu.socket, ssl.SSLSocket)
            peer = scu.socket.getpeercert()
            assert peer is not None
            assert scu.echo() == 0x0000
            scu.release()
            return peer["serialNumber"]

    context = authority.issue("scanner").client_context()
    with node.scu(VERIFICATION, IMPLICIT_LITTLE, tls=context) as early:
        old = serial(context)
        key = tmp_path / "tls" / "node.key"
        kept = key.read_bytes()

        key.write_bytes(b"half a file")
        assert serial(context) == old, "files that do not fit together change nothing"
        key.write_bytes(kept)
        assert serial(context) == old

        authority.issue("node", "127.0.0.1")
        assert serial(context) != old
        assert early.echo() == 0x0000


@pytest.mark.parametrize(
    "first_bytes", [b"", b"\x16\x03\x01", b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n"], ids=repr
)
def test_d3_t6_stalled_and_foreign_handshakes_end_and_delay_nobody(
    hurried: Node, authority: Authority, first_bytes: bytes
) -> None:
    good = authority.issue("scanner").client_context()
    started = time.monotonic()
    address = ("127.0.0.1", hurried.port)
    stalled = [socket.create_connection(address, timeout=PATIENCE_S) for _ in range(STALLED)]
    try:
        for connection in stalled:
            with suppress(ConnectionError):  # one too many of its address is gone already
                connection.sendall(first_bytes)
        assert_good_peer_is_served(hurried, good)
        for connection in stalled:
            try:
                while connection.recv(4096):
                    pass
            except ConnectionError:
                pass
        assert time.monotonic() - started < SHORT_S * 4
    finally:
        for connection in stalled:
            connection.close()
    assert_good_peer_is_served(hurried, good)


def test_d3_a_handshake_that_trickles_is_ended_at_its_deadline(hurried: Node, authority: Authority) -> None:
    good = authority.issue("scanner").client_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = good.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    trickle = outgoing.read()
    assert len(trickle) * TRICKLE_S > SHORT_S * 4, "all of it would take much longer than it may"
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=TRICKLE_S) as connection:
        for byte in trickle:
            try:
                connection.sendall(bytes([byte]))
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert SHORT_S * 3 / 4 < time.monotonic() - started < SHORT_S * 3


def test_d3_connections_whose_handshake_is_over_keep_nobody_out(tmp_path: Path, authority: Authority) -> None:
    most = 5
    tls = ServerTls(authority.issue("node", "127.0.0.1"))
    good = authority.issue("scanner").client_context()
    stranger = Authority(tmp_path / "other", "other").issue("stranger").client_context()
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with listening(tmp_path, tls=tls, max_silent_connections=most) as node:
        for _ in range(most + 1):
            refused(node, stranger)
            with node.scu(VERIFICATION, IMPLICIT_LITTLE, tls=good) as scu:
                assert scu.echo() == 0x0000
                scu.release()


def test_d3_handshakes_of_many_addresses_together_are_bounded(tmp_path: Path, authority: Authority) -> None:
    tls = ServerTls(authority.issue("node", "127.0.0.1"))
    limits = {"max_associations": 1, "max_silent_connections": 1, "acse_timeout_s": PATIENCE_S}
    with listening(tmp_path, tls=tls, **limits) as node, ExitStack() as open_ones:
        most = ListenerLimits(max_associations=1, max_silent_connections=1).max_connections
        silent = [
            open_ones.enter_context(
                socket.create_connection(
                    ("127.0.0.1", node.port), timeout=PATIENCE_S, source_address=(f"127.0.0.{last}", 0)
                )
            )
            for last in range(2, most + 3)
        ]
        with suppress(ConnectionError):
            assert silent[-1].recv(1) == b"", "one too many is closed at once"
        silent[0].settimeout(TRICKLE_S)
        with pytest.raises(TimeoutError):
            silent[0].recv(1)


def test_t6_plain_dicom_on_the_secure_port_is_refused(node: Node) -> None:
    assert "no secure connection" in refused(node, None)


def test_d4_a_certificate_admits_its_own_caller_alone(tmp_path: Path, authority: Authority) -> None:
    callers = [
        Caller("MAMMO1", certificate="mammo1.hospital.test"),
        Caller("MAMMO2", (ip_network("127.0.0.2/32"),), certificate="mammo2.hospital.test"),
    ]
    tls = ServerTls(authority.issue("node", "127.0.0.1"))
    with listening(tmp_path, tls=tls, admission=Admission("NODE", callers=callers)) as node:
        first = authority.issue("one", "mammo1.hospital.test").client_context()
        second = authority.issue("two", "mammo2.hospital.test").client_context()
        node.scu(tls=first, calling="MAMMO1").release()
        node.scu(tls=second, calling="MAMMO2", source="127.0.0.2").release()
        for context, calling in ((first, "MAMMO2"), (second, "MAMMO2"), (second, "MAMMO1"), (first, "OTHER")):
            with pytest.raises(AssociationRejectedError) as rejection:
                node.scu(tls=context, calling=calling)
            assert rejection.value.args == ((1, 1, 3),)
        assert [detail["reason"] for _, detail in node.events] == [
            "AE title not admitted from this address",
            "AE title not admitted from this address",
            "certificate does not name this caller",
            "calling AE title not recognised",
        ]


def test_d4_a_caller_with_a_certificate_is_not_admitted_without_one(tmp_path: Path) -> None:
    callers = [Caller("MAMMO1", certificate="mammo1.hospital.test")]
    with (
        listening(tmp_path, admission=Admission("NODE", callers=callers)) as node,
        pytest.raises(AssociationRejectedError),
    ):
        node.scu(calling="MAMMO1")


def test_d4_a_caller_may_do_what_it_is_admitted_for(tmp_path: Path) -> None:
    callers = [
        Caller("ASKER", operations=frozenset({Operation.ECHO})),
        Caller("SENDER", operations=frozenset({Operation.STORE})),
        Caller("BOTH"),
    ]
    dataset = mammogram()
    with listening(tmp_path, admission=Admission("NODE", callers=callers)) as node:

        def accepts(sop_class: str, calling: str) -> bool:
            with node.scu(sop_class, IMPLICIT_LITTLE, calling=calling) as scu:
                return scu.results == [0]

        assert {
            calling: [accepts(sop_class, calling) for sop_class in (MG_FOR_PRESENTATION, VERIFICATION)]
            for calling in ("ASKER", "SENDER", "BOTH")
        } == {"ASKER": [False, True], "SENDER": [True, False], "BOTH": [True, True]}
        with node.scu(calling="ASKER") as scu, pytest.raises(AssociationEndedError):
            scu.store(encoded(dataset), MG_FOR_PRESENTATION, uid_of(dataset))
        assert node.stored_nothing()


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    accounts = Accounts(tmp_path / "keys" / "accounts.json")
    accounts.add("mammo", PASSCODE)
    return accounts


def test_d5_t17_a_user_is_required_where_configured(
    tmp_path: Path, authority: Authority, accounts: Accounts
) -> None:
    tls = ServerTls(authority.issue("node", "127.0.0.1"))
    asked: list[bytes] = []

    def verify(name: bytes, passcode: bytes) -> bool:
        asked.append(name)
        return accounts.verify(name, passcode)

    callers = [Caller("MAMMO1", needs_user=True), Caller("OLD")]
    admission = Admission("NODE", callers=callers, verify_user=verify)
    context = authority.issue("scanner").client_context()
    with listening(tmp_path, tls=tls, admission=admission) as node:
        with node.scu(
            VERIFICATION, IMPLICIT_LITTLE, tls=context, calling="MAMMO1", user=("mammo", PASSCODE)
        ) as scu:
            assert scu.echo() == 0x0000
            scu.release()
        node.scu(tls=context, calling="OLD").release()
        assert asked == [b"mammo"]
        for user in (None, ("mammo", "wrong"), ("nobody", PASSCODE), ("mammo", "")):
            with pytest.raises(AssociationRejectedError) as rejection:
                node.scu(tls=context, calling="MAMMO1", user=user)
            assert rejection.value.args == ((1, 2, 1),)
        asked.clear()
        with pytest.raises(AssociationRejectedError) as rejection:
            node.scu(tls=context, calling="STRANGER", user=("mammo", PASSCODE))
        assert rejection.value.args == ((1, 1, 3),)
        assert asked == [], "who is not admitted learns nothing about passcodes"
        assert PASSCODE not in str(node.events)


def test_d5_a_passcode_without_tls_lets_nobody_in(tmp_path: Path, accounts: Accounts) -> None:
    admission = Admission("NODE", needs_user=True, verify_user=accounts.verify)
    with listening(tmp_path, admission=admission) as node:
        for user in (("mammo", PASSCODE), None):
            with pytest.raises(AssociationRejectedError) as rejection:
                node.scu(user=user)
            assert rejection.value.args == ((1, 2, 1),)


def test_d5_passcodes_are_kept_hashed_in_a_private_file(accounts: Accounts, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "accounts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert PASSCODE not in path.read_text()
    accounts.add("second", PASSCODE)
    assert accounts.names() == ["mammo", "second"]
    assert path.read_text().count("scrypt") == 2
    with pytest.raises(SettingsError, match="12 to 256 characters"):
        accounts.add("third", "short")
    path.chmod(0o640)
    assert not accounts.verify(b"mammo", PASSCODE.encode()), "a file that others may read lets nobody in"
    path.chmod(0o600)
    assert accounts.verify(b"mammo", PASSCODE.encode())
    assert accounts.remove("mammo")
    assert not accounts.remove("mammo")
    assert not accounts.verify(b"mammo", PASSCODE.encode())


@pytest.mark.parametrize("damage", ["readable", "missing", "other key", "no certificate", "passphrase"])
def test_t28_files_that_cannot_be_used_stop_the_start(authority: Authority, damage: str) -> None:
    files = authority.issue("node", "127.0.0.1")
    other = authority.issue("other")
    if damage == "readable":
        files.private_key.chmod(0o640)
    elif damage == "missing":
        files.private_key.unlink()
    elif damage == "other key":
        files = TlsFiles(files.certificate, other.private_key, files.authority)
    elif damage == "no certificate":
        files.certificate.write_text("none")
    else:
        subprocess.run(
            [
                "openssl",
                "ec",
                "-aes256",
                "-passout",
                "pass:secret",
                "-in",
                other.private_key,
                "-out",
                files.private_key,
            ],
            check=True,
            capture_output=True,
        )
    with pytest.raises(SettingsError, match=r"node\.key|other\.key"):
        ServerTls(files)


@pytest.fixture
def scanner(authority: Authority, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Send one image with DCMTK's storescu, as ``scanner(port, *options)``."""
    needs("/usr/bin/storescu", "dcmtk")
    files, path = authority.issue("scanner"), tmp_path / "image.dcm"
    dataset = mammogram()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    secure = ["+tls", files.private_key, files.certificate, "+cf", files.authority]

    def send(port: int, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["/usr/bin/storescu", *secure, *options, "-aec", "NODE", "127.0.0.1", str(port), path]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    return send


@pytest.mark.parametrize("profile", ["--profile-bcp195-nd", "--profile-bcp195-ex"])
def test_d1_dcmtk_stores_over_its_bcp195_profiles(
    node: Node, scanner: Callable[..., subprocess.CompletedProcess[str]], profile: str
) -> None:
    done = scanner(node.port, profile)
    assert done.returncode == 0, done.stderr
    assert [row.sop_instance_uid for row in node.rows.all] == [mammogram().SOPInstanceUID]


@pytest.mark.parametrize(("calling", "is_confirmed"), [("MAMMO1", True), ("OLD", False)])
def test_d5_a_scanner_that_wants_its_user_confirmed_hears_it_where_the_passcode_was_checked(
    tmp_path: Path,
    authority: Authority,
    accounts: Accounts,
    scanner: Callable[..., subprocess.CompletedProcess[str]],
    calling: str,
    is_confirmed: bool,
) -> None:
    tls = ServerTls(authority.issue("node", "127.0.0.1"))
    callers = [Caller("MAMMO1", needs_user=True), Caller("OLD")]
    admission = Admission("NODE", callers=callers, verify_user=accounts.verify)
    user = ("-usr", "mammo", "-pwd", PASSCODE, "--pos-response")
    with listening(tmp_path, tls=tls, admission=admission) as node:
        done = scanner(node.port, "-aet", calling, *user)
    assert (done.returncode == 0) is is_confirmed, done.stderr
    assert ("none received" in done.stderr) is not is_confirmed
    assert len(node.rows.all) == is_confirmed
