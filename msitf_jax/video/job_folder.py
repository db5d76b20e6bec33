"""The folder in which a job keeps what is finished, so that it outlasts an interruption.

Beside the output stands a folder, its name with `.part` at the end, until the work is done:

    holiday_4x.mp4.part/
      job.json           what is being done; another job does not go on with it
      00000.nut, ...     finished segments of video, or frames/00000001.png, ... for a folder
      00000.json, ...    how many frames a segment holds, and a digest; written last, so a segment that has one is whole
      compare/           pictures for the comparison page
"""

import contextlib
import errno
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from input_pipeline.locking import alone_in
from msitf_jax import atomic
from msitf_jax.video.reader import Source

VERSION = 3  # of what such a folder holds


def identity(video: Source) -> str:
    """A digest of the names, sizes and times of a source's files, by which it is known again."""
    facts = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in video.files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@contextlib.contextmanager
def opened(output: pathlib.Path, settings: Mapping[str, Any]) -> Iterator[pathlib.Path]:
    """Makes or finds an output's folder, for this process alone.

    Args:
      output: the output's path.
      settings: what the finished segments depend on, for JSON.

    Yields:
      The folder.

    Raises:
      ValueError: it can't be made, holds work with other settings, or is in use.
      OSError: what is done within it fails; where the disk is full, the message says how to go on.
    """
    folder = output.with_name(f"{output.name}.part")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"output {output}: {folder} can't be made ({error.strerror})") from None
    settings = {"version": VERSION, **settings}
    with alone_in(folder), _full_disk_named(output):
        path = folder / "job.json"
        if path.exists():
            found = _read_settings(path)
            changed = sorted(name for name in settings | found if found.get(name) != settings.get(name))
            if changed:
                raise ValueError(
                    f"{folder} holds unfinished work with another {', '.join(changed)}: "
                    "repeat that command to go on with it, or delete the folder to start anew"
                )
        else:
            atomic.write(path, lambda file: file.write(json.dumps(settings, indent=2).encode()))
        yield folder


def _read_settings(path):
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"{path}: damaged; delete {path.parent} to start anew")


@contextlib.contextmanager
def _full_disk_named(output):
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, "no space left; what is finished is kept, the same command goes on", str(output)
            ) from None
        raise
