"""Are the node's processes in this container alive? Exit status 0 where they are.

Every long-running process of a node signs in the database every ten seconds, under a name that ends in its
host's name and process id. So one question covers the process, its database and its settings, and opens no
association that the listener's limits would count. Of several listener processes none may be missing.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Ask the node's own commands."""
    asked, error = ask("status")
    if error:
        return unhealthy(error)
    here = [
        process["kind"] for process in asked["processes"] if process["alive"] and is_here(process["process"])
    ]
    if not here:
        return unhealthy("no process on this host signed lately")
    if "listen" in here:
        settings, error = ask("config", "show")
        if error:
            return unhealthy(error)
        wanted = settings["listener"]["processes"]
        if here.count("listen") < wanted:
            return unhealthy(f"{here.count('listen')} of {wanted} listener processes run")
    return 0


def ask(*command: str) -> tuple[dict[str, Any], str]:
    """Return what a command answers, and what it says where it fails."""
    asked = subprocess.run(["dicom-node", *command, "--json"], capture_output=True, text=True, check=False)
    return (json.loads(asked.stdout), "") if asked.returncode == 0 else ({}, asked.stderr.strip())


def is_here(name: str) -> bool:
    """Whether kind@host:pid runs in this container; its sign of life may be older than its end."""
    who, _, pid = name.rpartition(":")
    return who.endswith(f"@{socket.gethostname()}") and Path("/proc", pid).exists()


def unhealthy(reason: str) -> int:
    """Tell why."""
    sys.stderr.write(f"{reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
