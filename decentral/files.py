"""Settings of parts that name a file of the user's: a run keeps a copy of it and shows that to every host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias


class NamesFile:
    """Marks the annotation of such a setting; parts of third parties may use it too."""


FileName: TypeAlias = Annotated[str, NamesFile()]
FilePath: TypeAlias = Annotated[Path, NamesFile()]
