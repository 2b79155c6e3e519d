"""The images that the demonstration leaves are a folder that any tool sends as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dicom_node.cli.demonstration.studies import draw_studies
from tests.listening import listening

PATIENCE_S = 60


def test_the_drawn_studies_are_sent_by_their_folder_and_are_drawn_once(tmp_path: Path) -> None:
    folder = tmp_path / "shown" / "scanner"
    folder.parent.mkdir()
    left = folder / "study-1"
    left.mkdir(parents=True)
    (left / "complete").write_text("an earlier version's")
    (left / "L-CC.dcm").write_text("half an image")

    (study,) = draw_studies(folder, 1, lambda: None)

    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert sorted(first) == sorted(study.files)
    with listening(tmp_path / "node") as node:
        sent = subprocess.run(
            ["storescu", "+sd", "+r", "127.0.0.1", str(node.port), str(folder)],
            check=False,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        stored = [received.study_instance_uid for received in node.rows.all]
    assert (sent.returncode, sent.stderr) == (0, b"")
    assert stored == [study.study_instance_uid] * 4

    assert draw_studies(folder, 1, lambda: None) == [study]
    assert {path: path.stat().st_mtime_ns for path in first} == first
