"""Files that are either there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from decentral.errors import PreflightError


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a temporary file beside it, making folders as needed.

    A reader never sees half a file, and an older ``path`` survives a failure.

    Raises:
        PreflightError: full disk, read-only folder or the like; names the path.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            # NamedTemporaryFile makes files 0600; a report is as readable as the other files of its run.
            temporary.chmod(0o644)
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise PreflightError(
            f"cannot write {path}: {error.strerror}; free space or make the folder writable, "
            "then run `decentral report` again"
        ) from error
