"""PNG files: what passes as it is, and what is named."""

import pathlib

import cv2
import numpy as np
import pytest

from input_pipeline.png import encode_png, frame_order, png_size, read_png


def write_png(path, shape=(6, 8, 3), dtype=np.uint8):
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, shape).astype(dtype))


def test_a_whole_frame_passes_as_it_is(tmp_path):
    write_png(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    assert read_png(tmp_path / "a.png") == (whole, (8, 6))
    assert read_png(tmp_path / "a.png", (8, 6)) == (whole, (8, 6))
    with pytest.raises(ValueError, match=r"a\.png: is 8x6, expected 8x4"):
        read_png(tmp_path / "a.png", (8, 4))


def test_every_cut_and_every_altered_byte_is_found(tmp_path):
    path = tmp_path / "a.png"
    write_png(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"^frame .*a\.png: (is cut off after \d+ bytes|not a PNG image)$"):
            read_png(path)
        path.write_bytes(whole[:length] + bytes([whole[length] ^ 4]) + whole[length + 1 :])
        with pytest.raises(ValueError, match=r"^frame .*a\.png: (is damaged near|is cut off after|not a PNG image)"):
            read_png(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((6, 8), np.uint8, "8-bit grey"),
        ((6, 8, 4), np.uint8, "8-bit RGB with alpha"),
        ((6, 8, 3), np.uint16, "16-bit RGB"),
    ],
)
def test_other_kinds_are_named(shape, dtype, kind, tmp_path):
    write_png(tmp_path / "a.png", shape, dtype)
    with pytest.raises(ValueError, match=rf"a\.png: is {kind}, expected 8-bit RGB"):
        read_png(tmp_path / "a.png")


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "absent.png", tmp_path / "file" / "a.png"):
        with pytest.raises(ValueError, match=r"^frame .*\.png: is missing$"):
            read_png(path)
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_png(tmp_path)


def test_numbers_decide_the_order():
    names = ["im10.png", "im2.png", "im1.png", "a.png"]
    assert sorted(map(pathlib.Path, names), key=frame_order) == [*map(pathlib.Path, ["a.png", *names[2::-1]])]


@pytest.mark.parametrize("uncompressed", [False, True])
def test_what_is_encoded_is_decoded_alike(uncompressed, tmp_path):
    frame = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(frame, uncompressed))
    content, size = read_png(tmp_path / "a.png")
    assert (size, png_size(content, "a")) == ((40, 30), (30, 40))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], frame)
    flat = len(encode_png(np.zeros_like(frame), uncompressed))
    assert flat > 3600 if uncompressed else flat < 360


@pytest.mark.parametrize("content", [b"", b"no image", encode_png(np.zeros((2, 2, 3), np.uint8))[:20]])
def test_what_has_no_size_is_named(content):
    with pytest.raises(ValueError, match=r"^clip 1, frame 1: not a PNG image$"):
        png_size(content, "clip 1, frame 1")
