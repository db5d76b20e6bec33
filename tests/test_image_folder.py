"""Folders of images as pictures with their times, and what is refused."""

import fractions
import os
import struct

import cv2
import numpy as np
import pytest

from msitf_jax.video import color, reader
from msitf_jax.video.color import RGB
from tests.video import flat, noise, read, seconds


def write_images(folder, **images):
    """`write_images(folder, **{"1.png": array})`; colours are BGR, as OpenCV has them."""
    folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        (folder / name).write_bytes(cv2.imencode(os.path.splitext(name)[1], pixels)[1].tobytes())
    return folder


def grey(value, shape=(6, 8)):
    return np.full(shape, value, np.uint8)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    names = ["shot1_9.png", "shot1_010.png", "shot2_1.png", "shot10_1.png", "shot10_1a.png"]
    folder = write_images(tmp_path, **{name: grey(9 * index) for index, name in enumerate(names)})
    write_images(tmp_path, **{".hidden.png": grey(200)})
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "folder.png").mkdir()
    source = reader.open_source(folder)
    assert (source.frames, source.rate, source.time_base, source.sample_aspect_ratio) == (
        5,
        24,
        fractions.Fraction(1, 24),
        1,
    )
    pictures = list(source.pictures())
    assert [picture.pixels[0, 0].tolist() for picture in pictures] == [3 * [9 * index] for index in range(5)]
    assert [(picture.time, picture.duration) for picture in pictures] == [(index, 1) for index in range(5)]


def test_rate_and_part_of_a_folder(tmp_path):
    folder = write_images(tmp_path, **{f"{index}.png": grey(index) for index in range(12)})
    rate = fractions.Fraction(30000, 1001)
    assert reader.open_source(folder, fps="30000/1001").rate == rate
    assert seconds(folder, fps="30000/1001")[:3] == [0, 1 / rate, 2 / rate]
    assert [pixels[0, 0, 0] for pixels in read(folder, fps=10, start="0.15", end="0.5")] == [2, 3, 4]
    assert [pixels[0, 0, 0] for pixels in read(folder, fps=10, start="0.2", end="0.41")] == [2, 3, 4]
    assert len(read(folder, fps=10, start="1")) == 2


@pytest.mark.parametrize(
    ("name", "pixels", "kind"),
    [
        ("a.png", noise(1)[0], RGB()),
        ("a.png", noise(1, dtype=np.uint16, largest=65535)[0], RGB(16)),
        ("a.png", noise(1)[0, ..., 0], RGB()),
        ("a.png", noise(1, dtype=np.uint16, largest=65535)[0, ..., 0], RGB(16)),
        ("a.bmp", noise(1)[0], RGB()),
        ("a.tif", noise(1)[0], RGB()),
        ("a.TIFF", noise(1, dtype=np.uint16, largest=65535)[0], RGB(16)),
        ("a.webp", noise(1)[0], RGB()),
    ],
)
def test_images_without_loss_come_out_as_stored(tmp_path, name, pixels, kind):
    folder = write_images(tmp_path, **{name: pixels})
    assert reader.open_source(folder).pixels == kind
    expected = np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels[..., ::-1]
    np.testing.assert_array_equal(read(folder), [expected])


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", [cv2.IMWRITE_JPEG_QUALITY, 100]), ("a.webp", [cv2.IMWRITE_WEBP_QUALITY, 99])]
)
@pytest.mark.parametrize("size", [(16, 32), (16, 1280)])
def test_jpeg_and_webp_have_their_colours_at_every_size(tmp_path, name, options, size):
    color_ = (200, 120, 10)
    (tmp_path / name).write_bytes(cv2.imencode(name[1:], flat(color_[::-1], *size), options)[1].tobytes())
    source = reader.open_source(tmp_path)
    (picture,) = source.pictures()
    shown = color.to_8_bits(picture.pixels, source.pixels).astype(int)
    assert np.abs(shown - color_).max() <= 2  # 8 bits of Y'CbCr: 2 measured


def test_images_turned_by_their_camera_are_turned_upright(tmp_path):
    content = cv2.imencode(
        ".jpg", np.where(np.arange(32) < 16, np.uint8(20), np.uint8(220)) * np.ones((16, 1), np.uint8)
    )[1].tobytes()
    # Orientation (0x0112) 6: the first row is on the right.
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x0112, 3, 1, 6, 0, 0)
    (tmp_path / "a.jpg").write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    source = reader.open_source(tmp_path)
    assert (source.width, source.height) == (16, 32)
    (pixels,) = read(tmp_path)
    assert pixels[:12].max() < 40
    assert pixels[-12:, :, 0].min() > 200


def test_grey_and_colour_and_alpha_mix_in_a_folder(tmp_path):
    colored = noise(1, 6, 8)[0]
    folder = write_images(tmp_path, **{"1.png": grey(7), "2.png": colored, "3.png": np.dstack([colored, grey(9)])})
    np.testing.assert_array_equal(read(folder), [flat((7, 7, 7), 6, 8), colored[..., ::-1], colored[..., ::-1]])
    source = reader.open_source(write_images(tmp_path, **{"0.png": np.dstack([colored, grey(9)])}))
    assert source.warnings == [f"{tmp_path} has an alpha channel, which is left out"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (grey(1, (6, 9)), r"frame \S+2.png: is 9x6 gray, expected 8x6 gray as 1.png$"),
        (grey(1).astype(np.uint16), r"frame \S+2.png: is 8x6 gray16le, expected 8x6 gray as 1.png$"),
        (b"", r"frame \S+2.png: not a readable image of at most [\d,]+ pixels \([^\n]+\)$"),
        (b"no image", r"frame \S+2.png: not a readable image of at most [\d,]+ pixels \([^\n]+\)$"),
        (
            b"ffconcat version 1.0\nfile 1.png\n",
            r"frame \S+2.png: not a readable image of at most [\d,]+ pixels \([^\n]+\)$",
        ),
    ],
)
def test_images_that_do_not_fit_are_named(tmp_path, content, message):
    folder = write_images(tmp_path, **{"1.png": grey(1)})
    if isinstance(content, bytes):
        (folder / "2.png").write_bytes(content)
    else:
        write_images(folder, **{"2.png": content})
    pictures = reader.open_source(folder).pictures()
    next(pictures)
    with pytest.raises(ValueError, match=f"^{message}"):
        next(pictures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, r"`fps` \(=0\) must be above 0$"),
        ({"start": "1"}, r"input \S+: no frames in this folder from 1 s to the end \(.png, .jpg"),
        ({"start": "0.001", "end": "0.002"}, r"input \S+: no frames in this folder from 0.001 s to 0.002 s \(.png"),
        ({}, None),
    ],
)
def test_folders_without_frames_are_refused(tmp_path, options, message):
    folder = write_images(tmp_path / "frames", **{"1.png": grey(1)})
    if message is None:
        folder, message = tmp_path, r"input \S+: no frames in this folder \(.png, .jpg"
    with pytest.raises(ValueError, match=f"^{message}"):
        reader.open_source(folder, **options)


def test_names_of_images_are_taken_as_they_are(tmp_path):
    names = ["%d.png", "%03d 1.png", "-y.png", "http:2.png", "ünï ☃.png"]
    folder = write_images(tmp_path, **{name: grey(index) for index, name in enumerate(names)})
    assert sorted(pixels[0, 0, 0] for pixels in read(folder)) == [0, 1, 2, 3, 4]
