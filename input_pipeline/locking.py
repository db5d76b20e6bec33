"""One process at a time in a folder."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder that exists; the lock ends with the process, so a killed one leaves none behind.

    Where the file system or Windows has no such locks nothing is held.

    Raises:
      ValueError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have none
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: in use by another process, expected none at work there") from None
        yield
    finally:
        os.close(descriptor)
