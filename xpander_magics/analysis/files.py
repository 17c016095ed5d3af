"""Files that are written whole or not at all, and that their owner alone can read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from xpander_magics.errors import ConfigError


def checked_path(path: str | os.PathLike[str], suffixes: Sequence[str]) -> Path:
    """The path as one that can be written to, before any work is done for it.

    Args:
        suffixes: the endings that are known here, such as ``.html``.

    Raises:
        ConfigError: another ending, no such folder, a folder of this name, or a name that no file can have.
    """
    try:
        found = Path(path).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.stat()
    except (OSError, RuntimeError, ValueError) as error:  # too long, of a user that isn't there, with a NUL in it
        told = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ConfigError(f"{str(path)[:200]!r} can't be written: {told}.") from None
    if found.suffix.lower() not in suffixes:
        known = ", ".join(suffixes[:-1]) + f" or {suffixes[-1]}" if len(suffixes) > 1 else suffixes[0]
        raise ConfigError(f"{found.name or found}: a file's name must end in {known}.")
    if not found.parent.is_dir():
        raise ConfigError(f"{found}: there is no folder {found.parent}. Make it first, or choose another.")
    if found.is_dir():
        raise ConfigError(f"{found} is a folder. Choose another name.")
    return found


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields where to write: a file beside ``path`` that takes its place at the end, and goes where that fails.

    Raises:
        ConfigError: the folder can't be written to.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)  # mkstemp's files have mode 0600
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror or error}.") from error
    beside = Path(name)
    try:
        yield beside
        with open(beside, "rb+") as written:
            os.fsync(written.fileno())  # or a power cut may leave an empty file in the old one's place
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror or error}.") from error
    finally:
        beside.unlink(missing_ok=True)
