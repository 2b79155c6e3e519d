"""The log of a training run: one JSON object in a line, readable while the run goes on and after a kill."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from training.atomic_file import full_disk_told
from training.errors import TrainingError


class RunLog:
    """Appends events to ``log.jsonl`` and, where asked for, numbers to TensorBoard's files.

    Parameters
    ----------
    path : Path
        The file. What a killed run left of a last line is cut off.
    tensorboard : Path or None
        Folder for TensorBoard's files.

    Raises
    ------
    TrainingError
        If TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, tensorboard: Path | None = None) -> None:
        self._path = path
        # Unbuffered: what a full disk did not take must not come again when the file is closed.
        self._file = path.open("ab+", buffering=0)
        self._cut_torn_line()
        self._board = _board(tensorboard) if tensorboard is not None else None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its time and facts (JSON values).

        Raises
        ------
        ResourcesError
            If the disk is full.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        with full_disk_told(self._path.parent):
            self._file.write((json.dumps(line, allow_nan=False) + "\n").encode("utf-8"))
        if self._board is not None and event == "epoch":
            for name in ("training_loss", "log_loss", "auc", "learning_rate"):
                if facts.get(name) is not None:
                    self._board.add_scalar(f"fold-{facts['fold']}/{name}", facts[name], facts["epoch"])

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            "TensorBoard is not installed: pip install 'dicom-node[tensorboard]', or leave the option out."
        ) from error
    return SummaryWriter(str(folder))
