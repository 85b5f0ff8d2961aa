"""What labs of this test session could leave behind on the machine, to be compared before and after."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tests.lab.commands import MARK, run
from tests.lab.registry import labs


def traces() -> set[str]:
    """One line for every link, mount, process, registered lab and network namespace that there is now.

    Other sessions' labs may come and go meanwhile: what is registered as theirs does not count, and network
    namespaces, which bear no name, count where continuous integration has a machine to itself.
    """
    alone = os.environ.get("CI") is not None
    ours = f"{tempfile.gettempdir()}/"
    foreign = {name for name, folder in labs().items() if not str(folder).startswith(ours)}
    links = {line.split()[1].rstrip(":").partition("@")[0] for line in run("ip", "-o", "link").splitlines()}
    found = {f"lab {name}" for name in labs().keys() - foreign}
    found |= {f"link {name}" for name in links - foreign}
    found |= {f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines()}
    for pid in (name for name in os.listdir("/proc") if name.isdecimal()):
        try:
            if alone:
                found.add(f"namespace {os.readlink(f'/proc/{pid}/ns/net')}")
            if f"{MARK}={ours}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(f"process {pid} {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or of another's
    return found
