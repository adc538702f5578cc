"""Files that are replaced all together or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files; none is touched before all of them are complete beside their places.

    A full disk or a missing permission leaves whatever was there before, and no part of anything new.

    Args:
        files: Content by path. Folders are made if they do not exist.

    Raises:
        OSError: If one of them cannot be written.
    """
    made: list[Path] = []
    complete: list[tuple[Path, Path]] = []
    try:
        for path, content in files.items():
            made += _make(path.parent)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            complete.append((temporary, path))
            temporary.write_bytes(content)
        for temporary, path in complete:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in complete:
            temporary.unlink(missing_ok=True)
        for folder in reversed(made):
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


def _make(folder: Path) -> list[Path]:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]
