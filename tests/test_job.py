"""Whole jobs: from a file to a file, stopped and gone on with, and what is refused before anything is done."""

import itertools
import math
import pathlib
import re
import signal
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest

import upscale
from msitf_jax import methods, weights
from msitf_jax.video import job, job_folder, reader, sinks
from msitf_jax.video.upscaler import OVERHEAD, Engine
from tests.tiny_network import tiny_network
from tests.video import Sound, Text, packets, write_video

ROOT = pathlib.Path(__file__).parents[1]


def moving(count, height=12, width=16, seed=0):
    """Frames of noise that slides sideways: none equal, no cuts."""
    pattern = cv2.resize(np.random.default_rng(seed).integers(40, 200, (8, 40, 3), np.uint8), (width + count, height))
    return [np.ascontiguousarray(pattern[:, index : index + width]) for index in range(count)]


def pictures(path):
    source = reader.open_source(path)
    return source, list(source.pictures())


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mkv", moving(9))


def run(source, output, **options):
    return job.run(source, output, progress=False, **{"weights": "trilinear"} | options)


def stop_after(windows, monkeypatch):
    """Has Ctrl-C pressed after some windows."""
    put, handed_over = job.WriteBehind.put, []

    def counting_put(behind, item):
        put(behind, item)
        handed_over.append(item)
        if sum(entry is job._END_OF_WINDOW for entry in handed_over) == windows and item is job._END_OF_WINDOW:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(job.WriteBehind, "put", counting_put)


def test_a_round_trip_keeps_two_sound_tracks_subtitles_chapters_and_titles(tmp_path):
    source = write_video(
        tmp_path / "in.mkv",
        moving(24),
        codec="libx264",
        pix_fmt="yuv420p",
        tracks=[
            Sound("aac", {"language": "eng"}),
            Sound("flac", {"language": "fra", "title": "Commentaire"}),
            Text([(100, 400, "Hallo"), (500, 900, "Ende")], metadata={"language": "deu"}),
        ],
        chapters=[(0, 1, "One")],
        metadata={"title": "My holiday"},
    )
    output = tmp_path / "out.mkv"
    summary = run(source, output)
    assert (summary.frames_in, summary.frames_out) == (24, 47)
    assert "in:  24 frames, 16x12, 25 frames/s" in summary.text
    assert "out: 47 frames, 64x48, 50 frames/s" in summary.text
    for track in (("audio", 0), ("audio", 1), ("subtitles", 0)):
        assert packets(output, *track) == packets(source, *track)
    _, shown = pictures(output)
    video, given = pictures(source)
    origin = [picture.time * video.time_base for picture in given]
    halves = [(a + b) / 2 for a, b in itertools.pairwise(origin)]
    np.testing.assert_allclose(
        [picture.time / 1000 for picture in shown], np.array(sorted(origin + halves), float), atol=6e-4
    )  # Matroska counts milliseconds
    with av.open(str(output)) as container:
        assert container.metadata["title"] == "My holiday"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
        assert [stream.metadata.get("language") for stream in container.streams] == [None, "eng", "fra", "deu"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_every_length_gives_twice_as_many_but_one_in_the_same_time(tmp_path):
    for count in range(1, 9):
        source = write_video(tmp_path / f"{count}.mkv", moving(count))
        output = tmp_path / f"{count}.mp4"
        assert run(source, output).frames_out == 2 * count - 1
        _, shown = pictures(output)
        assert len(shown) == 2 * count - 1
        with av.open(str(output)) as container:
            stream = container.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(count / 25, abs=1e-4)


def test_what_is_in_the_file_is_what_the_method_gives(clip, tmp_path):
    output = tmp_path / "out.mkv"
    run(clip, output, weights="bicubic", codec="ffv1", pix_fmt="yuv444p")
    source, given = pictures(clip)
    result, shown = pictures(output)
    rgb = np.stack([np.asarray(source.pixels.to_rgb(picture.pixels)) for picture in given[:4]])
    expected = methods.BASELINES["bicubic"](rgb[None])[0]
    for picture, frame in zip(shown[:7], expected, strict=True):
        difference = picture.pixels.astype(int) - np.asarray(source.pixels.from_rgb(frame), int)
        assert np.abs(difference).max() <= 1  # the matrix is compiled into the network's end, or not
    assert result.tags == source.tags


def test_stopped_work_goes_on_where_it_was(tmp_path, monkeypatch):
    source = write_video(tmp_path / "in.mkv", moving(26))
    whole, output = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    options = {"weights": "bicubic", "codec": "ffv1"}
    run(source, whole, **options)
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(job.Interrupted, match=r"stopped after 19 of about 51 frames; the same command goes on"):
            run(source, output, **options)
    assert not output.exists()
    part = tmp_path / "out.mkv.part"
    assert (part / "00000.json").exists()
    assert not list(part.glob("*.part"))

    run_windows, engine_run = [], Engine.run
    monkeypatch.setattr(Engine, "run", lambda engine, window: run_windows.append(window) or engine_run(engine, window))
    assert run(source, output, **options).frames_out == 51
    assert len(run_windows) == 6  # of 9
    for one, other in zip(pictures(whole)[1], pictures(output)[1], strict=True):
        assert one.time == other.time
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert not part.exists()


@pytest.mark.slow
def test_a_killed_job_keeps_its_finished_segments(tmp_path):
    source = write_video(tmp_path / "in.mkv", moving(300, 60, 80))
    whole, output, part = tmp_path / "whole.mp4", tmp_path / "out.mp4", tmp_path / "out.mp4.part"

    def start(path):
        command = [sys.executable, ROOT / "upscale.py", source, path, "--weights=trilinear"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with start(output) as process:
        while not (part / "00000.json").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not output.exists()
    finished = len(list(part.glob("0*.json")))
    assert 1 <= finished < 6
    (part / f"{finished:05}.nut").write_bytes(b"a segment that nothing says is whole")
    for path in (output, whole):
        assert start(path).wait() == 0
    assert len(pictures(output)[1]) == 599
    assert output.read_bytes() == whole.read_bytes()
    assert not part.exists()


def test_other_settings_do_not_go_on_with_unfinished_work(clip, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(job.Interrupted):
            run(clip, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match=r"out.mp4.part holds unfinished work with another output, scale"):
        run(clip, tmp_path / "out.mp4", scale=2, crf=30)
    assert run(clip, tmp_path / "out.mp4").frames_out == 17


def test_two_processes_do_not_make_the_same_output(clip, tmp_path):
    with job_folder.opened(tmp_path / "out.mp4", {}), pytest.raises(ValueError, match="in use by another process"):
        run(clip, tmp_path / "out.mp4")


def test_frames_in_folders(tmp_path):
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(moving(5), 8):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), frame[..., ::-1])
    assert run(tmp_path / "in", tmp_path / "out", weights="bicubic").frames_out == 9
    names = [f"{number:08}.png" for number in range(1, 10)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    expected = methods.method("bicubic")(np.stack(moving(5)[:4]))
    for name, frame in zip(names, expected, strict=False):
        written = cv2.imread(str(tmp_path / "out" / name))[..., ::-1]
        assert np.abs(written.astype(int) - frame).max() <= 1  # rounding of halves

    run(tmp_path / "in", tmp_path / "slow.mp4", fps=10)
    source, shown = pictures(tmp_path / "slow.mp4")
    assert [float(picture.time * source.time_base) for picture in shown] == pytest.approx(np.arange(9) / 20)


def test_10_bits_stay_10_bits(tmp_path):
    ramp = np.zeros((12, 16, 3), np.uint16) + np.linspace(400, 420, 16).astype(np.uint16)[:, None]
    source = write_video(tmp_path / "in.mkv", [ramp], pix_fmt="yuv444p10le")
    run(source, tmp_path / "out.mp4")
    assert reader.open_source(tmp_path / "out.mp4").pixels.bits == 10
    run(source, tmp_path / "out")
    png = cv2.imread(str(tmp_path / "out" / "00000001.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    assert len(np.unique(png)) > 40


@pytest.mark.parametrize("cut", ["repeat", "hold"])
def test_nothing_is_mixed_across_a_cut(cut, tmp_path):
    dark, light = np.full((12, 16, 3), 40, np.uint8), np.full((12, 16, 3), 200, np.uint8)
    frames = [dark + level for level in np.arange(4, dtype=np.uint8)] + [
        light + level for level in np.arange(3, dtype=np.uint8)
    ]
    source = write_video(tmp_path / "in.mkv", frames)
    run(source, tmp_path / "out.mkv", codec="ffv1", cut=cut)
    given, shown = pictures(tmp_path / "out.mkv")
    levels = [picture.pixels[..., 0].mean() for picture in shown]
    assert not [level for level in levels if 60 < level < 170]
    assert len(shown) == {"repeat": 13, "hold": 12}[cut]
    beside = [picture.time * given.time_base * 25 for picture in shown][6:9]
    assert [float(value) for value in beside] == ([3, 3.5, 4] if cut == "repeat" else [3, 4, 4.5])


def test_a_part_is_cut_out_with_its_sound(tmp_path):
    source = write_video(tmp_path / "in.mkv", moving(25), tracks=[Sound("flac")])
    summary = run(source, tmp_path / "out.mkv", start=0.4, end=0.8, interpolate=False)
    assert (summary.frames_in, summary.frames_out) == (10, 10)
    video, shown = pictures(tmp_path / "out.mkv")
    assert [round(picture.time * video.time_base * 25) for picture in shown] == list(range(10))
    part = packets(tmp_path / "out.mkv", "audio")
    expected = [entry for entry in packets(source, "audio") if 0.4 <= entry[0] < 0.8]
    assert [content for *_, content in part] == [content for *_, content in expected]
    np.testing.assert_allclose(
        [float(moment) for moment, *_ in part], [float(moment) - 0.4 for moment, *_ in expected], atol=1e-3
    )


def test_the_smaller_scale_averages_the_larger(clip, tmp_path):
    for scale in (4, 2):
        run(clip, tmp_path / f"{scale}.mkv", scale=scale, codec="ffv1", pix_fmt="yuv444p")
    for large, small in zip(pictures(tmp_path / "4.mkv")[1], pictures(tmp_path / "2.mkv")[1], strict=True):
        means = large.pixels.reshape(24, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(small.pixels - means).max() <= 1


def test_the_comparison_page_shows_frames_of_the_clip(clip, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    with monkeypatch.context() as patch:  # pictures made before an interruption are on the page too
        stop_after(1, patch)
        with pytest.raises(job.Interrupted):
            run(clip, tmp_path / "out.mp4", weights="bicubic", compare=page)
    run(clip, tmp_path / "out.mp4", weights="bicubic", compare=page)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2 * job.COMPARED
    assert len(set(re.findall(r"Frame (\d+) at", text))) == job.COMPARED
    assert "weights: bicubic" in text


@pytest.mark.parametrize("expected", [None, 1, 2, 11, 12, 47, 10_000])
def test_the_comparison_page_has_a_picture_however_few_frames_there_are_in_truth(expected):
    shown = job._spread(expected)
    assert 0 in shown
    assert max(shown) < (expected or math.inf)
    assert len(shown) == min(job.COMPARED, expected or job.COMPARED)


def test_a_comparison_page_is_asked_for_from_the_beginning(clip, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(job.Interrupted):
            run(clip, tmp_path / "out.mp4", weights="bicubic")
    with pytest.raises(ValueError, match=r"out.mp4.part holds unfinished work with another compare:"):
        run(clip, tmp_path / "out.mp4", weights="bicubic", compare=tmp_path / "page.html")


def test_a_file_cut_off_is_taken_as_far_as_it_goes(tmp_path, capsys):
    whole = write_video(tmp_path / "whole.mkv", moving(20), codec="libx264", pix_fmt="yuv420p", options={"g": "1"})
    source = tmp_path / "cut.mkv"
    content = whole.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    summary = job.run(source, tmp_path / "out.mp4", weights="trilinear")
    assert 5 < summary.frames_in < 20
    assert summary.frames_out == 2 * summary.frames_in - 1
    assert "cut.mkv is damaged" in capsys.readouterr().err


def test_weights_must_be_made_for_such_video(tmp_path, clip):
    path = tmp_path / "blurred.safetensors"
    weights.save(tiny_network(), path, degradation="bd_matlab")
    with pytest.raises(ValueError, match="made for frames degraded by bd_matlab, expected bi; --degradation=bd_matlab"):
        run(clip, tmp_path / "out.mp4", weights=path)
    assert run(clip, tmp_path / "out.mp4", weights=path, degradation="bd_matlab").frames_out == 17


def _text(folder):
    (folder / "notes.mp4").write_text("not a video")
    return folder / "notes.mp4"


def _other_network(folder):
    import safetensors.numpy

    safetensors.numpy.save_file({"conv.weight": np.zeros((3, 3), np.float32)}, folder / "other.safetensors")
    return folder / "other.safetensors"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            lambda folder: ["clip.mkv", "out.mp4", "--compare=clip.mkv"],
            "(='clip.mkv') must be a name that ends in .html",
        ),
        (lambda folder: ["clip.mkv", "out.mp4", "--compare=there.html"], "`compare` (='there.html'): exists already"),
        (lambda folder: ["clip.mkv", "pictures"], "pictures: exists already"),
        (lambda folder: ["clip.mkv", "pictures", "--overwrite"], "holds 1.png, expected nothing but frames of an earl"),
        (lambda folder: ["absent.mp4", "out.mp4"], "input absent.mp4: no such file or folder"),
        (lambda folder: [_text(folder), "out.mp4"], "notes.mp4: not a video that FFmpeg can read"),
        (lambda folder: ["clip.mkv", "clip.mkv"], "is the input, expected another name"),
        (lambda folder: ["clip.mkv", "./clip.mkv", "--overwrite"], "is the input, expected another name"),
        (lambda folder: ["clip.mkv", "there.mp4"], "there.mp4: exists already"),
        (lambda folder: ["clip.mkv", "absent/out.mp4"], "its folder must exist and be writable"),
        (lambda folder: ["clip.mkv", "out.avi"], "expected a name that ends in .mp4"),
        (lambda folder: ["clip.mkv", "out.mp4", "--codec=h999"], "`codec` (='h999') is no encoder"),
        (lambda folder: ["clip.mkv", "out.mp4", "--pix_fmt=rgb24"], "`pix_fmt` (='rgb24') does not go with libx264"),
        (lambda folder: ["clip.mkv", "out.mkv", "--codec=ffv1", "--crf=3"], "`crf` (=3) goes with"),
        (lambda folder: ["clip.mkv", "out", "--crf=3"], "`crf` (=3.0) is for video files"),
        (lambda folder: ["clip.mkv", "out.mp4", "--weights=no.pth"], "no.pth: no such file"),
        (lambda folder: ["clip.mkv", "out.mp4", f"--weights={_other_network(folder)}"], "other.safetensors: "),
        (lambda folder: ["clip.mkv", "out.mp4", "--memory=1M"], "`memory` (=1 MiB) must be at least about"),
        (lambda folder: ["clip.mkv", "out.mp4", "--fps=30"], "`fps` (=30) is the rate of a folder of frames"),
        (lambda folder: ["clip.mkv", "out.mp4", "--start=9", "--end=8"], "expected 0 <= start < end"),
        (
            lambda folder: ["clip.mkv", "out.mp4", "--compare=absent/page.html"],
            "page.html: its folder must exist",
        ),
        (
            lambda folder: ["clip.mkv", "out.mp4", "--weights=trilinear", "--compute_dtype=bfloat16"],
            "`compute_dtype` (='bfloat16') is for",
        ),
        (lambda folder: [folder / "empty", "out.mp4"], "no frames in this folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mkv", moving(3))
    (tmp_path / "there.mp4").write_bytes(b"precious")
    (tmp_path / "there.html").write_bytes(b"precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"precious")
    given = [str(argument) for argument in arguments(tmp_path)]
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert upscale.main(given) == 2
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert line.startswith("upscale.py: ")
    assert said in line
    assert not captured.out
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_too_little_space_is_said_before_work_starts(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job.shutil, "disk_usage", lambda path: job.shutil._ntuple_diskusage(1000, 1000, 100))
    assert upscale.main([str(clip), str(tmp_path / "out.mp4"), "--weights=trilinear"]) == 2
    assert "out.mp4: 0 MB are free there, expected at least" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4.part").exists()


def test_space_that_runs_out_leaves_work_to_go_on_with(clip, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sinks.joining, "join", full)
        assert upscale.main([str(clip), str(tmp_path / "out.mp4"), "--weights=trilinear"]) == 2
    assert "no space left; what is finished is kept, the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
    assert run(clip, tmp_path / "out.mp4").frames_out == 17


def test_large_frames_are_cut_into_tiles_that_are_not_seen(tmp_path, capsys):
    source = write_video(tmp_path / "in.mkv", moving(5, 60, 90))
    for name, memory in (("whole", None), ("tiles", OVERHEAD + 8_000_000)):
        job.run(source, tmp_path / f"{name}.mkv", weights="bicubic", memory=memory, codec="ffv1")
        assert (" tiles of " in capsys.readouterr().err) == (name == "tiles")
    for whole, tiled in zip(*(pictures(tmp_path / f"{name}.mkv")[1] for name in ("whole", "tiles")), strict=True):
        assert np.abs(whole.pixels.astype(int) - tiled.pixels).max() <= 1


def test_a_folder_of_frames_is_replaced_only_if_asked(clip, tmp_path):
    output = tmp_path / "out"
    run(clip, output)
    with pytest.raises(ValueError, match="out: exists already"):
        run(clip, output)
    run(clip, output, interpolate=False, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == [f"{number:08}.png" for number in range(1, 10)]


def test_an_output_is_replaced_only_if_asked(clip, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_bytes(b"old")
    run(clip, output, overwrite=True)
    assert len(pictures(output)[1]) == 17
