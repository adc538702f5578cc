"""Files that are there whole or not at all, and one sentence for a disk that does not take them."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: "a part of the path is a file",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under another name of the same folder, and give it its own name once it is complete.

    Whoever reads the file sees the old or the new one, never a part, whenever the process ends.

    Args:
        path: The file. Its folder is made if it does not exist.

    Yields:
        The name to write to, which ends as the file's own does.

    Raises:
        OSError: If it cannot be written, with the reason as a sentence.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f"-{path.name}")
        temporary = Path(name)
        try:
            os.close(descriptor)
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())  # a name must not outlive its content if the machine fails
            # A private temporary file gets the permissions that an ordinary new file has here.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: The file.
        text: Its content.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Give what the operating system refuses a reason and a path that the user can act on.

    Args:
        path: What is about to be written.

    Raises:
        OSError: With a sentence, in place of one with a number.
    """
    try:
        yield
    except Exception as error:
        sentence = disk_sentence(error, path)
        if sentence is None:
            raise
        raise OSError(sentence) from error


def disk_sentence(error: BaseException, path: Path | None = None) -> str | None:
    """Say why something could not be written; None for an error that is about something else.

    Args:
        error: The error.
        path: What was being written, if the error does not say so.

    Example:
        >>> disk_sentence(OSError(errno.ENOSPC, "No space left on device", "run/last.ckpt"))
        "Expected to be able to write 'run/last.ckpt', but the disk is full."
    """
    # Libraries that are written in Rust, such as safetensors, say the number in their text alone.
    said = re.search(r"\(os error (\d+)\)", str(error))
    number = getattr(error, "errno", None) or (int(said[1]) if said else 0)
    if number not in _REASONS:
        return None
    place, reason = path or getattr(error, "filename", None), _REASONS[number]
    return f"Expected to be able to write {'the output' if place is None else repr(str(place))}, but {reason}."
