"""Who is let in is said in one configuration file; what cannot be kept safe stops the start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import select

from db.audit.keys import AuditKey
from db.audit.trail import AuditTrail
from db.session import Database
from db.tables import AuditEvent
from dicom_node import installation
from dicom_node.cli.security import admission, audit_exceptions, tls_for
from dicom_node.errors import DestinationUnavailableError, SettingsError
from dicom_node.listener.admission import EVERY_OPERATION, Admitted, Knock, Operation, Refusal
from dicom_node.settings import Settings, load
from dicom_node.tls import TlsFiles, days_left
from tests.command_line import command
from tests.simulators.certificates import Authority
from workers.retry import GiveUp, Policy, decide

FAR_REDIS = "redis://10.1.2.3:6379/0"


def settings_of(tmp_path: Path, toml: str) -> Settings:
    file = tmp_path / "settings.toml"
    file.write_text(toml)
    return load(config_file=file, flags={"data_dir": tmp_path / "data"})


def tls_section(name: str, authority: Authority) -> str:
    files = authority.issue("node", "127.0.0.1")
    return (
        f'[{name}.tls]\ncertificate = "{files.certificate}"\nprivate_key = "{files.private_key}"\n'
        f'authority = "{files.authority}"\n'
    )


def test_callers_are_read_with_addresses_operations_and_certificates(tmp_path: Path) -> None:
    toml = """
[listener]
allowed_ae_titles = ["OLD"]

[[callers]]
title = "MAMMO1"
addresses = ["10.1.2.3", "10.9.0.0/16", "2001:db8::/32"]

[[callers]]
title = "MONITOR"
operations = ["echo"]
"""
    decide = admission(settings_of(tmp_path, toml)).decide
    for address in ("10.1.2.3", "10.9.200.1", "2001:db8::7", "::ffff:10.1.2.3"):
        assert decide(Knock("MAMMO1", "DICOM_NODE", address)) == Admitted(EVERY_OPERATION), address
    for address in ("10.1.2.4", "2001:db9::7", "", "10.1.2.3.evil.test"):
        assert isinstance(decide(Knock("MAMMO1", "DICOM_NODE", address)), Refusal), address
    assert decide(Knock(" MONITOR ", "DICOM_NODE", "10.8.8.8")) == Admitted(frozenset({Operation.ECHO}))
    assert decide(Knock("OLD", "DICOM_NODE", "10.8.8.8")) == Admitted(EVERY_OPERATION)
    assert isinstance(decide(Knock("STRANGER", "DICOM_NODE", "10.1.2.3")), Refusal)


def test_without_callers_everybody_is_admitted_as_before(tmp_path: Path) -> None:
    decide = admission(settings_of(tmp_path, "")).decide
    assert decide(Knock("ANYBODY", "ANYTHING", "192.0.2.1")) == Admitted(EVERY_OPERATION)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[[callers]]\ntitle = "A"\naddresses = ["10.1.2.3/8"]', "no address or network"),
        ('[[callers]]\ntitle = "A"\naddresses = ["scanner.test"]', "no address or network"),
        ('[[callers]]\ntitle = "A"\noperations = ["find"]', "'store', 'echo' or 'commit'"),
        ('[[callers]]\ntitle = "A\\\\B"', "not an AE title"),
        ('[[callers]]\naddresses = ["10.1.2.3"]', "callers.title"),
        ('[[callers]]\ntitle = "A"\ncertificate = "a.test"', "listener.tls"),
        ('[[callers]]\ntitle = "A"\nuser_identity = true', "listener.tls"),
        ("[listener]\nrequire_user_identity = true", "listener.tls"),
        ("[listener]\nplain = false", "listener.plain"),
        ('[listener.tls]\ncertificate = "/a.pem"', "belong together"),
        ('[delivery.tls]\ndestinations = ["PACS@10.0.0.1:2762"]', "are needed"),
        (
            '[delivery.tls]\ncertificate="/a"\nprivate_key="/b"\nauthority="/c"\ndestinations=["P@h:1"]',
            "none of",
        ),
        (f'broker_url = "{FAR_REDIS}"', "allow_insecure_redis"),
        ('broker_url = "rediss://redis.test/0"', "allow_insecure_redis"),
        ('broker_url = "redis://:secret@10.1.2.3:6379/0"', "TLS"),
    ],
)
def test_t23_a_setting_that_would_not_protect_stops_the_start(tmp_path: Path, toml: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        settings_of(tmp_path, toml)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "redis://127.0.0.1:6379/0",
        "redis://[::1]:6379/0",
        "redis+socket:///run/redis.sock",
        "rediss://:secret@10.1.2.3:6379/0",
        "rediss://node:secret@redis.test/0",
    ],
)
def test_t23_a_redis_that_asks_for_a_password_over_tls_or_is_this_machines_own_is_used(
    tmp_path: Path, url: str
) -> None:
    assert settings_of(tmp_path, f'broker_url = "{url}"').broker_url is not None


@pytest.mark.parametrize("url", [FAR_REDIS, "redis://:secret@10.1.2.3/0"])
def test_t23_an_open_redis_that_is_allowed_by_name_is_audited(
    tmp_path: Path, database: Database, url: str
) -> None:
    secured = settings_of(tmp_path, 'broker_url = "rediss://:secret@10.1.2.3/0"')
    audit_exceptions(secured, database, "test")
    opened = settings_of(tmp_path, f'allow_insecure_redis = true\nbroker_url = "{url}"')
    audit_exceptions(opened, database, "test")
    with database.reading() as session:
        events = list(session.scalars(select(AuditEvent).where(AuditEvent.action.startswith("security."))))
    assert [event.action for event in events] == ["security.exception_allowed"]


def test_t23_the_refusal_reaches_the_person_who_starts_the_node_and_tells_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'broker_url = "{FAR_REDIS}?secret=hunter2"\n')
    ended = subprocess.run(
        [*installation.console_script(), "serve", "--data-dir", tmp_path / "data", "--config", file],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 3
    assert "allow_insecure_redis" in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout
    assert not (tmp_path / "data").exists(), "nothing was started"


def test_variables_of_the_environment_reach_the_inner_sections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority(tmp_path / "tls").issue("node")
    monkeypatch.setenv("DICOM_NODE_LISTENER__TLS__PORT", "2763")
    monkeypatch.setenv("DICOM_NODE_LISTENER__TLS__CERTIFICATE", str(files.certificate))
    monkeypatch.setenv("DICOM_NODE_LISTENER__TLS__PRIVATE_KEY", str(files.private_key))
    monkeypatch.setenv("DICOM_NODE_LISTENER__TLS__AUTHORITY", str(files.authority))
    settings = settings_of(tmp_path, "")
    assert settings.listener.tls.port == 2763
    assert settings.listener.tls.files == files
    monkeypatch.setenv("DICOM_NODE_LISTENER__TLS__PROT", "2763")
    with pytest.raises(SettingsError, match="did you mean PORT"):
        settings_of(tmp_path, "")


def test_only_the_destinations_that_are_named_are_reached_over_tls(tmp_path: Path) -> None:
    toml = 'destinations = ["PACS@127.0.0.1:2762/ohif", "OLD@127.0.0.1:104"]\n' + tls_section(
        "delivery", Authority(tmp_path / "tls")
    )
    settings = settings_of(tmp_path, toml + 'destinations = ["PACS@127.0.0.1:2762"]\n')
    context = tls_for(settings)
    secure, plain = settings.parsed_destinations
    assert context(secure) is not None
    assert context(plain) is None


def test_results_wait_while_the_nodes_own_certificate_cannot_be_used(tmp_path: Path) -> None:
    toml = 'destinations = ["PACS@127.0.0.1:2762"]\n' + tls_section("delivery", Authority(tmp_path / "tls"))
    settings = settings_of(tmp_path, toml + 'destinations = ["PACS@127.0.0.1:2762"]\n')
    (destination,), context = settings.parsed_destinations, tls_for(settings)
    key = tmp_path / "tls" / "node.key"
    key.rename(key.with_suffix(".away"))
    with pytest.raises(DestinationUnavailableError, match="private key") as waiting:
        context(destination)
    assert decide(waiting.value, 1000, Policy(5, 300)) != GiveUp()
    key.with_suffix(".away").rename(key)
    assert context(destination) is not None, "without a restart"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    assert command("db", "upgrade", "--data-dir", folder).status == 0
    return folder


def test_doctor_tells_who_may_come_in_and_which_certificate_ends(data_dir: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    file = tmp_path / "settings.toml"

    def findings(toml: str) -> dict[str, tuple[str, str]]:
        file.write_text(toml)
        ended = command("doctor", "--json", "--data-dir", data_dir, "--config", file)
        return {each["check"]: (each["verdict"], each["found"]) for each in ended.json}

    assert findings("")["callers"] == ("warning", "whoever reaches the port may store")
    one = '[[callers]]\ntitle = "A"\n'
    assert findings(one)["callers"] == ("warning", "1 admitted from any address")
    assert findings(one + 'addresses = ["10.1.2.3"]')["callers"][0] == "ok"

    secure = tls_section("listener", authority)
    assert findings(secure)["listener.tls"] == ("warning", "the certificate ends in 29 days")
    authority.issue("node", days=90)
    assert findings(secure)["listener.tls"][0] == "ok"
    authority.issue("node", days=-2)
    assert findings(secure)["listener.tls"] == ("problem", "the certificate has expired")
    (tmp_path / "tls" / "node.key").chmod(0o644)
    assert "chmod 600" in findings(secure)["listener.tls"][1]
    delivered = 'destinations = ["PACS@127.0.0.1:1"]\n' + secure.replace("listener", "delivery")
    told = findings(delivered + 'destinations = ["PACS@127.0.0.1:1"]\n')
    assert told["C-ECHO PACS@127.0.0.1:1"][0] == "problem"
    assert "not sent without TLS" in told["C-ECHO PACS@127.0.0.1:1"][1]
    open_redis = f'allow_insecure_redis = true\nbroker_url = "{FAR_REDIS}"'.replace("10.1.2.3", "192.0.2.1")
    assert findings(open_redis)["broker address"][0] == "problem"


def test_users_are_added_listed_and_removed_by_command_and_audited(data_dir: Path) -> None:
    passcode = "one that a machine made"
    where = ("--data-dir", str(data_dir))
    console = [*installation.console_script(), "account"]
    for words, typed, status in (
        (["add", "mammo", *where], passcode, 0),
        (["add", "mammo two", *where], passcode, 3),
        (["add", "short", *where], "short", 3),
    ):
        ended = subprocess.run(
            [*console, *words], input=typed + "\n", capture_output=True, text=True, timeout=150, check=False
        )
        assert ended.returncode == status, ended.stderr
        assert typed not in ended.stdout
    assert command("account", "list", *where).out.split() == ["mammo"]
    kept = data_dir / "keys" / "accounts.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert passcode not in kept.read_text()
    assert command("account", "remove", "mammo", *where).status == 0
    assert command("account", "remove", "mammo", *where).status == 4
    assert command("account", "list", *where).out == ""
    trail = AuditTrail(AuditKey.load(data_dir / "keys" / "audit.key"))
    database = Database(f"sqlite:///{data_dir / 'node.db'}", trail)
    with database.reading() as session:
        actions = [row for row in session.scalars(select(AuditEvent.action)) if row.startswith("account.")]
    database.close()
    assert actions == ["account.added", "account.removed"]


def test_the_documented_certificates_work(tmp_path: Path) -> None:
    """The commands of the page are run as they stand; what they make is what the settings want."""
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "secure-the-node.md").read_text()
    (commands,) = [
        block.partition("```")[0] for block in page.split("```sh\n") if block.startswith("openssl req")
    ]
    subprocess.run(["/bin/sh", "-ec", commands], cwd=tmp_path, check=True, capture_output=True, timeout=150)
    files = TlsFiles(tmp_path / "node.pem", tmp_path / "node.key", tmp_path / "authority.pem")
    files.server_context()
    files.client_context()
    assert 360 < days_left(files) < 366
