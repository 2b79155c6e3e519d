"""The documents tell the truth: commands exist, references are of today, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from db import schema
from db.audit.actions import ACTIONS
from dicom_node.cli.main import app
from dicom_node.cli.wiring import open_database
from dicom_node.settings import Settings
from training.run_config import checked

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "docker").rglob("*.md"))
    if path.name != "CHANGELOG.md"
)
BY_HAND = [page for page in PAGES if "Written by docs/generate.py" not in page.read_text()[:200]]
BLOCK = re.compile(r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PATH_IN_TEXT = re.compile(
    r"`(?P<path>(?:dicom_node|db|models|workers|training|tests|docs|docker|benchmarks)/[\w./-]+)`"
)
HEADING = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    return (found["text"] for found in BLOCK.finditer(page.read_text()) if found["language"] == language)


def command_lines(page: Path) -> list[list[str]]:
    """Return the words of every command in a page's shell blocks, leading variables left out."""
    found = []
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


def our_commands() -> list[tuple[Path, list[str]]]:
    found = []
    for page in PAGES:
        for words in command_lines(page):
            inside = words.index("dicom-node") if words[0] == "docker" and "dicom-node" in words else 0
            if words[inside] in ("dicom-node", ".venv/bin/dicom-node"):
                found.append((page, words[inside + 1 :]))
    return found


def parse(arguments: list[str]) -> None:
    """Parse as the command line does, without running; fail where a command or option does not exist."""
    command: Any = get_command(app)
    path = []
    while (inner := getattr(command, "commands", None)) is not None:
        assert arguments, f"{' '.join(path)} needs a command"
        assert arguments[0] in inner, f"there is no command {' '.join([*path, arguments[0]])!r}"
        path.append(arguments[0])
        command, arguments = inner[arguments[0]], arguments[1:]
    context = command.context_class(command, info_name=path[-1])
    values, extra, _ = command.make_parser(context).parse_args(list(arguments))
    assert not extra, f"{' '.join(path)} takes no {extra}"
    for parameter in command.params:
        assert not parameter.required or values.get(parameter.name), f"{path} needs {parameter.name}"


# Commands that read, or change a fresh node in a blink; with the places of an example's node replaced.
READING = {
    "status",
    "study list",
    "job list",
    "result list",
    "model list",
    "db upgrade",
    "db check",
    "config check",
}
READING |= {f"audit {verb}" for verb in ("query", "verify", "export", "rotate-key")}
PLACES = {"--data-dir": "NODE", "--config": "NODE/node-for-commands.toml"}
CHEAP = {
    tuple(PLACES.get(option, word) for option, word in zip(["", *words], words, strict=False))
    for _, words in our_commands()
    if (words[0] in READING or " ".join(words[:2]) in READING) and "DIGEST" not in words
}


@pytest.mark.parametrize(("page", "arguments"), our_commands(), ids=lambda value: str(value)[-60:])
def test_every_documented_command_exists_with_its_options(page: Path, arguments: list[str]) -> None:
    parse(arguments)


@pytest.mark.parametrize(
    "arguments",
    [["study", "lst"], ["study", "list", "--jsn"], ["study", "show"], ["doctor", "extra"], ["audit"]],
    ids=" ".join,
)
def test_a_wrong_command_would_be_noticed(arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|there is no|needs|takes no"):
        parse(arguments)


@pytest.fixture(scope="module")
def quiet_node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the data directory of a node that has received nothing, with a configuration file in it."""
    folder = tmp_path_factory.mktemp("documented") / "node"
    settings = Settings(data_dir=folder)
    with open_database(settings, upgrade=True):
        (folder / "node-for-commands.toml").write_text(f'data_dir = "{folder}"\n')
    return folder


@pytest.mark.parametrize("arguments", list(map(list, sorted(CHEAP))), ids=" ".join)
def test_documented_commands_work_on_a_fresh_node(
    arguments: list[str], quiet_node: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # for what they write
    result = CliRunner().invoke(app, [word.replace("NODE", str(quiet_node)) for word in arguments])
    assert result.exit_code == 0, result.output
    assert result.output.strip()


def test_every_documented_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {words[1] for page in PAGES for words in command_lines(page) if words[0] == "make"}
    asked |= {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)[^`]*`", page.read_text())}
    assert {"demo", "test"} <= asked
    assert asked <= targets


def test_every_documented_script_exists() -> None:
    asked = {
        words[0] for page in PAGES for words in command_lines(page) if re.match(r"(\.ci|docker)/", words[0])
    }
    assert asked
    assert [script for script in asked if not os.access(ROOT / script, os.X_OK)] == []


def test_references_and_file_map_are_of_today() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr + "run: python docs/generate.py"


def test_the_file_map_names_what_exists_and_leaves_nothing_out() -> None:
    (text,) = [text for text in blocks(ROOT / "README.md", "text") if text.startswith("dicom_node/")]
    mapped: dict[str, str] = {}
    parent = ""
    for line in text.splitlines():
        name, _, meaning = line.strip().partition(" ")
        if not line.startswith(" "):
            parent = name if name.endswith("/") else ""
        mapped[parent + name if line.startswith(" ") else name] = meaning.strip()
    assert [path for path in mapped if not (ROOT / path).exists()] == []
    assert [path for path, meaning in mapped.items() if not meaning] == []
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    folders = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."} - {
        *ignored
    }
    packages = ("dicom_node", "db", "models", "workers", "training")
    inner = {
        f"{package}/{path.name}/"
        for package in packages
        for path in (ROOT / package).iterdir()
        if path.is_dir() and path.name[0] not in "_."
    }
    assert folders | inner <= mapped.keys()


def test_the_page_of_modules_leaves_none_out_and_has_a_line_for_each() -> None:
    page = (ROOT / "docs" / "reference" / "modules.md").read_text()
    listed: set[str] = set()
    for part in page.split("\n## ")[1:]:
        folder, _, rows = part.partition("\n")
        found = re.findall(r"^\| `([^`]+)` \| (.*) \|$", rows, re.MULTILINE)
        assert [name for name, meaning in found if not meaning] == []
        listed |= {folder + name for name, _ in found}
    there = {
        str(path.relative_to(ROOT))
        for package in ("dicom_node", "db", "models", "workers", "training")
        for path in (ROOT / package).rglob("*.py")
        if path.name[0] != "_" and "versions" not in path.parts
    }
    assert listed >= there


def test_no_page_lets_the_tools_of_the_environment_hide_those_of_dcmtk() -> None:
    # pynetdicom puts a storescp, storescu and echoscu with other options there.
    hiding = re.compile(r"PATH=\S*\.venv/bin:\S*\$\{?PATH|(?:source|\.) \S*\.venv/bin/activate")
    assert [named(page) for page in BY_HAND if hiding.search(page.read_text())] == []
    tutorial = command_lines(ROOT / "docs" / "tutorial" / "first-study.md")
    assert any("storescu" in words for words in tutorial)
    assert ["apt-get", "install", "dcmtk"] in tutorial


def test_the_documented_scores_are_those_of_one_run() -> None:
    report = (ROOT / "README.md").read_text()
    table = (ROOT / "docs" / "tutorial" / "first-study.md").read_text()
    (row,) = re.findall(r"^ +4  malignant SPIC in the L breast +([\d. ]+?) +POSITIVE", table, re.MULTILINE)
    (right, right_cc, right_mlo), (left, left_cc, left_mlo) = re.findall(
        r"breast: probability of cancer ([\d.]+) % \(CC ([\d.]+) %, MLO ([\d.]+) %\)", report
    )
    assert row.split() == [right_cc, right_mlo, left_cc, left_mlo, right, left, max(right, left, key=float)]


def test_the_documented_misses_are_those_of_the_model_card() -> None:
    (card,) = (ROOT / "models" / "bundles").glob("*/model_card.md")
    shares = dict(
        re.findall(r"^\| (sensitivity|benign_called_positive) \| study \| ([\d.]+)", card.read_text(), re.M)
    )
    found, malignant, called, benign = map(
        int,
        re.findall(
            r"found (\d+) of (\d+) malignant\s+ones, and called (\d+) of (\d+) benign",
            (ROOT / "README.md").read_text(),
        )[0],
    )
    assert found / malignant == pytest.approx(float(shares["sensitivity"]), abs=0.0005)
    assert called / benign == pytest.approx(float(shares["benign_called_positive"]), abs=0.0005)


def test_the_readme_lists_the_system_packages_that_ci_installs() -> None:
    listed = (ROOT / ".ci" / "system-packages.txt").read_text().splitlines()
    installed = [w for words in command_lines(ROOT / "README.md") if words[0] == "apt-get" for w in words[2:]]
    assert sorted(installed) == sorted(line for line in listed if line and not line.startswith("#"))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for found in LINK.finditer(BLOCK.sub("", page.read_text())):
        target, _, anchor = found["target"].partition("#")
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{target} does not exist"
        if anchor:
            titles = [title["title"] for title in HEADING.finditer(BLOCK.sub("", there.read_text()))]
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{target} has no heading {anchor}"


@pytest.mark.parametrize("page", BY_HAND, ids=named)
def test_every_path_that_is_named_exists(page: Path) -> None:
    named_paths = [path for path in PATH_IN_TEXT.findall(page.read_text()) if "<" not in path]
    assert [path for path in named_paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", BY_HAND, ids=named)
def test_every_page_is_reached_from_the_index(page: Path) -> None:
    indexes = (ROOT / "README.md", ROOT / "docs" / "README.md", ROOT / "docs" / "decisions" / "README.md")
    reached = {
        (index.parent / found["target"].partition("#")[0]).resolve()
        for index in indexes
        for found in LINK.finditer(index.read_text())
    }
    assert page.resolve() in {*reached, ROOT / "README.md"}


def test_every_decision_record_has_context_decision_and_consequences() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [record.name[:4] for record in records] == [f"{n:04d}" for n in range(1, len(records) + 1)]
    for record in records:
        titles = HEADING.findall(record.read_text())
        assert titles[0].startswith(f"{record.name[:4]}: ")
        assert titles[1:] == ["Context", "Decision", "Consequences"], record.name


def test_documented_configuration_files_hold_right_settings() -> None:
    examples = [text for page in PAGES for text in blocks(page, "toml")]
    assert examples
    for values in map(tomllib.loads, examples):
        if "architecture" in values:
            checked(values)
        else:
            Settings.model_validate(values)


def test_the_production_role_is_the_one_that_is_tested() -> None:
    made, granted = blocks(ROOT / "docs" / "how-to" / "production.md", "sql")
    role, *rights = re.findall(r"^    ((?:CREATE|GRANT|REVOKE)[^;]*;)", schema.__doc__ or "", re.MULTILINE)
    assert role in made.splitlines(), "by an administrator: the owner of the tables may make no role"
    assert granted.splitlines() == rights


def test_documents_name_no_setting_that_does_not_exist() -> None:
    sections = {
        name: field.annotation.model_fields
        for name, field in Settings.model_fields.items()
        if hasattr(field.annotation, "model_fields")
    }
    for page in BY_HAND:
        # Audit actions and the key's file begin like a setting.
        names = re.findall(rf"`({'|'.join(sections)})\.([a-z]+_[a-z_]+)\b", page.read_text())
        for section, setting in (name for name in names if ".".join(name) not in ACTIONS):
            assert setting in sections[section], f"{named(page)}: {section}.{setting}"
