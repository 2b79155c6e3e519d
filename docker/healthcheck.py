"""Is the node's process in this container alive? Exit status 0 where it signed in the last seconds.

Every long-running process of a node signs in the database every ten seconds, under a name that ends in its
host's name and process id. So one question covers the process, its database and its settings, and opens no
association that the listener's limits would count.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys


def main() -> int:
    """Ask the node's own status command."""
    asked = subprocess.run(["dicom-node", "status", "--json"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        sys.stderr.write(asked.stderr)
        return 1
    here = f"@{socket.gethostname()}:"
    processes = json.loads(asked.stdout)["processes"]
    if any(process["alive"] and here in process["process"] for process in processes):
        return 0
    sys.stderr.write("no process on this host signed lately\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
