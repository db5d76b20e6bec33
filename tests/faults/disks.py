"""Small disks to fill up, where the tests may mount any."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def mounted(path, *options):
    """A tmpfs at `path`, which is made, with options of mount(8); skips where that is not allowed."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", path], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)
