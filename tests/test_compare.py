"""The page of before/after sliders: what it holds, what it refuses, and what a browser shows of it."""

import base64
import errno
import html
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from msitf_jax.video import compare

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLAIN, RESULT = (200, 50, 40), (30, 70, 210)
DATA = re.compile(r"data:image/jpeg;base64,([\w+/=]+)")


def flat(color, height=240, width=320):
    return np.full((height, width, 3), color, np.uint8)


def smooth(seed, height=48, width=80):
    coarse = np.random.default_rng(seed).uniform(20, 235, (4, 6, 3))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def test_holds_escaped_text_and_both_pictures(tmp_path):
    pictures = [("at $1 & <b>", smooth(0), smooth(1)), ('"second"', smooth(2, 31, 47), smooth(3, 31, 47))]
    title, notes = "<i>holiday</i> $width.mp4", ["4 < 5", "${plain}"]
    compare.write_page(tmp_path / "page.html", pictures, title=title, notes=notes)
    page = (tmp_path / "page.html").read_text("utf-8")
    texts = DATA.sub("", page)

    assert f"<title>{html.escape(title)}: " in page
    assert f"<h1>{html.escape(title)}</h1>" in page
    assert re.findall("<li>(.*)</li>", page) == [html.escape(note) for note in notes]
    assert re.findall("<figcaption>(.*)</figcaption>", page) == [html.escape(caption) for caption, _, _ in pictures]
    assert 'aria-label="&quot;second&quot;: ' in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert not re.search(r"http|@import|<link|url\(", texts)
    assert set(re.findall(r'src="(.*)"', texts)) == {""}

    stored = [cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1] for uri in DATA.findall(page)]
    expected = [frame for _, plain, result in pictures for frame in (result, plain)]
    for frame, original in zip(stored, expected, strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 2  # 0.7 to 1.0
    assert re.findall(r'width="(\d+)" height="(\d+)"', page) == [("80", "48")] * 2 + [("47", "31")] * 2


def test_name_that_is_no_utf8_is_shown_as_far_as_it_goes(tmp_path):
    compare.write_page(tmp_path / "page.html", [("", smooth(0), smooth(1))], title="caf\udce9.mp4", notes=[])
    assert "<h1>caf?.mp4</h1>" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([], "`pictures` is empty"),
        ([("", flat(0), flat(0)), ("", flat(0), flat(0, 120, 320))], r"`pictures\[1\]` has shapes .*240.* and .*120"),
        (
            [("", flat(0)[..., :1], flat(0)[..., :1])],
            r"`pictures\[0\]` has shape \(240, 320, 1\), expected \[H, W, 3\]",
        ),
        ([("", flat(0)[:0], flat(0)[:0])], r"shape \(0, 320, 3\)"),
        ([("", flat(0, 65501, 1), flat(0, 65501, 1))], r"shape \(65501, 1, 3\)"),
        ([("", flat(0), flat(0) / 255.0)], "dtypes uint8 and float64, expected uint8"),
    ],
)
def test_refuses(tmp_path, pictures, message):
    with pytest.raises(ValueError, match=message):
        compare.write_page(tmp_path / "page.html", pictures, title="", notes=[])
    assert not list(tmp_path.iterdir())


def test_failure_half_way_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("before")
    uris = iter(["data:,"] * 3)

    def full_disk(frame):
        if uri := next(uris, None):
            return uri
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compare, "_jpeg", full_disk)
    with pytest.raises(OSError, match="No space left"):
        compare.write_page(path, [("", flat(0), flat(0))] * 2, title="", notes=[])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("address", "position", "width"),
    [("", 0.5, None), ("#position=20", 0.2, None), ("#position=70&size=full", 0.7, 320), ("#position=x", 0.5, None)],
)
def test_browser_shows_plain_left_of_the_line_and_result_right(tmp_path, address, position, width):
    compare.write_page(tmp_path / "page.html", [("", flat(PLAIN), flat(RESULT))], title="flat.mp4", notes=["a note"])
    screen = screenshot(tmp_path, address)
    plain, result = (np.abs(screen.astype(int) - color).max(axis=2) < 12 for color in (PLAIN, RESULT))
    # A row below labels and handle, and so one that nothing but the line is missing from.
    rows = np.flatnonzero(plain.any(axis=1) & result.any(axis=1))
    row = rows[len(rows) * 9 // 10]
    plain, result = np.flatnonzero(plain[row]), np.flatnonzero(result[row])
    left, right = plain[0], result[-1] + 1
    line = (plain[-1] + 1 + result[0]) / 2
    assert result[0] - plain[-1] - 1 <= 10  # the line and its shadow
    assert len(plain) == plain[-1] - left + 1
    assert len(result) == right - result[0]
    assert abs(line - (left + position * (right - left))) <= 1.5
    assert right - left == width if width else right - left > 400


def screenshot(folder, address):
    """`[500, 600, 3]` uint8 RGB of the page in `folder`."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'screen.png'}"]
    command += ["--window-size=600,500", "--force-device-scale-factor=1", (folder / "page.html").as_uri() + address]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return cv2.imread(str(folder / "screen.png"))[..., ::-1]
