"""What a run writes down, through kills, full disks and restarts, and its line of progress by a hand-wound clock."""

import contextlib
import gc
import io
import math
import os
import resource
import struct
import subprocess
import sys
import termios

import cv2
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from msitf_jax.training.writers import ProgressLine, RunLog, read_metrics


def events(workdir):
    """All TensorBoard events of a run, file after file, their checksums verified."""
    found = []
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        content, start = path.read_bytes(), 0
        while start < len(content):
            size, size_check = struct.unpack_from("<QI", content, start)
            assert masked_crc32c(content[start : start + 8]) == size_check
            event = content[start + 12 : start + 12 + size]
            assert struct.unpack_from("<I", content, start + 12 + size) == (masked_crc32c(event),)
            found.append(Event.FromString(event))
            start += 16 + size
    return found


def log_steps(log, steps):
    for step in steps:
        log.scalars(step, {"train/loss": 1000 / step, "train/psnr": 20 + step / 7})
        if step % 20 == 0:
            log.scalars(step, {"eval/psnr_y": 25 + step / 3})


def test_lines_are_json_with_sorted_names_and_exact_numbers(tmp_path):
    with RunLog(tmp_path / "new" / "run") as log:
        log.scalars(120, {"train/psnr": np.float64(0.1) + 0.2, "train/loss": np.float32(4321.5)})
        log.scalars(np.int64(140), {"b": float("nan"), "a": float("-inf"), "c": np.array(3)})
    assert log.path == tmp_path / "new" / "run" / "metrics.jsonl"
    assert log.path.read_text() == (
        '{"step": 120, "train/loss": 4321.5, "train/psnr": 0.30000000000000004}\n'
        '{"step": 140, "a": null, "b": null, "c": 3.0}\n'
    )
    assert read_metrics(log.path)[1] == {"step": 140, "a": None, "b": None, "c": 3.0}


def test_tensorboard_gets_the_scalars_and_pictures(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    with RunLog(tmp_path) as log:
        log.scalars(120, {"train/loss": 4321.5, "train/psnr": float("nan")})
        log.images(120, {"eval/output": picture})
    version, start, scalars, images = events(tmp_path)
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step) == (SessionLog.START, 0)
    assert scalars.step == images.step == 120
    assert scalars.wall_time > 1e9
    loss, psnr = scalars.summary.value
    assert (loss.tag, loss.simple_value, psnr.tag) == ("train/loss", 4321.5, "train/psnr")
    assert math.isnan(psnr.simple_value)
    (shown,) = images.summary.value
    assert (shown.tag, shown.image.height, shown.image.width, shown.image.colorspace) == ("eval/output", 5, 7, 3)
    decoded = cv2.imdecode(np.frombuffer(shown.image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], picture)


@pytest.mark.parametrize("cut", ["", '{"step": 70, "trai', "{", '{"step": 70, "train/loss": 1}', "\0\0\0"])
@pytest.mark.parametrize("resume", [0, 20, 30, 60])
def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path, resume, cut):
    with RunLog(tmp_path / "whole") as log:
        log_steps(log, range(10, 101, 10))
    with RunLog(tmp_path / "killed") as log:
        log_steps(log, range(10, 61, 10))
    with open(log.path, "a") as file:
        file.write(cut)
    with RunLog(tmp_path / "killed", step=resume) as log:
        log_steps(log, range(resume + 10, 101, 10))
    assert (tmp_path / "killed/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_starting_anew_drops_step_0_too(tmp_path):
    for _ in range(2):
        with RunLog(tmp_path) as log:
            log.scalars(0, {"eval/psnr_y": 20})
    assert len(read_metrics(log.path)) == 1


def test_a_whole_line_that_lacks_only_its_end_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "a": 1.0}')
    with RunLog(tmp_path, step=10) as log:
        log.scalars(20, {"a": 2})
    assert log.path.read_text() == '{"step": 10, "a": 1.0}\n{"step": 20, "a": 2.0}\n'


def test_restarts_within_a_second_keep_all_events_and_hide_what_is_done_again(tmp_path):
    for step in (0, 10, 10):
        with RunLog(tmp_path, step=step) as log:
            log.scalars(step + 10, {"a": 1})
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3
    found = [(event.step, event.HasField("session_log")) for event in events(tmp_path) if not event.file_version]
    assert found == [(0, True), (10, False), (11, True), (20, False), (11, True), (20, False)]


def test_a_kill_loses_nothing_that_was_logged(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from msitf_jax.training.writers import RunLog\n"
        "log = RunLog(sys.argv[1])\n"
        "log.scalars(10, {'a': 1.5})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-W", "error", "-c", program, tmp_path], capture_output=True, text=True)
    assert (killed.returncode, killed.stderr) == (-9, "")
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 10, "a": 1.5}]
    assert events(tmp_path)[-1].summary.value[0].simple_value == 1.5


def test_metrics_are_read_while_a_line_is_being_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "a": 1.0}\n{"step": 20, "a"')
    assert read_metrics(path) == [{"step": 10, "a": 1.0}]


@pytest.mark.parametrize("line", ["hello", '{"a": 1}', "[1]", '{"step": "10"}', ""])
def test_a_file_that_is_something_else_is_refused_and_left_alone(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 10}}\n{line}\n{{"step": 20}}\n')
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: is .*, expected a JSON object with a step"):
        RunLog(tmp_path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_number_or_picture_is_refused(tmp_path):
    with RunLog(tmp_path) as log:
        with pytest.raises(ValueError, match=r"`values\['loss'\]` \(='high'\) must be a number"):
            log.scalars(1, {"loss": "high"})
        with pytest.raises(ValueError, match=r"`values\['loss'\]` .* must be a number"):
            log.scalars(1, {"loss": np.ones(2)})
        with pytest.raises(ValueError, match=r"`values\['step'\]` \(=2\)"):
            log.scalars(1, {"step": 2})
        with pytest.raises(ValueError, match=r"picture 'output': is float64 \(4, 4, 3\), expected uint8"):
            log.images(1, {"output": np.zeros((4, 4, 3))})
        with pytest.raises(ValueError, match=r"picture 'output': is uint8 \(4, 4\)"):
            log.images(1, {"output": np.zeros((4, 4), np.uint8)})
    assert not log.path.exists()


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match=r"/run'"):
        RunLog(tmp_path / "run")
    (tmp_path / "metrics" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match=r"metrics\.jsonl'"):
        RunLog(tmp_path / "metrics")


@contextlib.contextmanager
def room(size):
    """Files can't get larger than so many bytes, much as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_line_that_does_not_fit_on_the_disk_is_an_error_and_leaves_no_half_line(tmp_path):
    with RunLog(tmp_path) as log:
        log.scalars(10, {"a": 1.5})
        with room(log.path.stat().st_size + 5), pytest.raises(OSError, match=r"too large: '.*/metrics\.jsonl'"):
            log.scalars(20, {"a": 2.5})
        log.scalars(30, {"a": 3.5})
    assert [record["step"] for record in read_metrics(log.path)] == [10, 30]


def test_events_that_do_not_fit_on_the_disk_are_an_error(tmp_path):
    with room(40), pytest.raises(OSError, match=r"too large: '.*/events\.out\.tfevents\.000001'"):
        RunLog(tmp_path)
    with room(100), pytest.raises(OSError, match=r"too large: '.*/events\.out\.tfevents\.000002'"):  # noqa: SIM117
        with RunLog(tmp_path) as log:
            log.scalars(10, {"a": 1.5})
    gc.collect()  # a file that is still open would warn now


def test_a_resume_that_does_not_fit_on_the_disk_keeps_the_old_file(tmp_path):
    with RunLog(tmp_path) as log:
        log_steps(log, range(10, 101, 10))
    content = log.path.read_bytes()
    with room(40), pytest.raises(OSError, match=r"too large: '.*/metrics\.jsonl'"):
        RunLog(tmp_path, step=90)
    assert log.path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2


class Terminal(io.StringIO):
    """What a terminal shows: a carriage return goes back, and text replaces what stood there."""

    def isatty(self):
        return True

    def lines(self):
        shown = []
        for line in self.getvalue().split("\n"):
            cells = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            shown.append("".join(cells).rstrip())
        return shown


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


VALUES = {"train/loss": 4321.04, "train/psnr": 27.312, "train/learning_rate": 2e-4, "other": 1}


def test_the_line_of_progress():
    clock, stream = Clock(), io.StringIO()
    progress = ProgressLine(150_000, clips_per_step=24, stream=stream, clock=clock)
    clock.now += 60  # compilation
    progress.update(1100, VALUES)
    assert progress.clips_per_second is None
    clock.now += 100 * 24 / 13.2
    progress.update(1200, VALUES)
    assert progress.clips_per_second == pytest.approx(13.2)
    assert stream.getvalue().splitlines() == [
        "  1100/150000  loss 4321.0  psnr 27.31 dB  lr 2.0e-04",
        "  1200/150000  loss 4321.0  psnr 27.31 dB  lr 2.0e-04  13.2 clips/s  3 d 03 h left",
    ]


def test_pauses_count_for_the_time_left_only():
    clock, stream = Clock(), io.StringIO()
    progress = ProgressLine(1000, clips_per_step=2, stream=stream, clock=clock)
    with progress.paused():
        clock.now += 500  # before the first update, so not even for that
    progress.update(0, {})
    clock.now += 100
    progress.update(100, {})
    with progress.paused():
        clock.now += 50
    clock.now += 100
    progress.update(200, {})
    with contextlib.suppress(KeyError), progress.paused():
        clock.now += 30
        raise KeyError
    clock.now += 100
    progress.update(300, {})
    clock.now += 700
    progress.update(1000, {})
    assert stream.getvalue().splitlines() == [
        "   0/1000",
        " 100/1000  2.00 clips/s  15 min left",  # 900 steps of 1 s
        " 200/1000  2.00 clips/s  17 min left",  # 800 of 1 s + 50 s / 200
        " 300/1000  2.00 clips/s  15 min left",  # 700 of 1 s + 80 s / 300
        "1000/1000  2.00 clips/s",
    ]


def test_speed_is_the_recent_one():
    clock = Clock()
    progress = ProgressLine(1000, clips_per_step=1, stream=io.StringIO(), clock=clock)
    for step in range(12):
        clock.now += 100 if step < 2 else 1
        progress.update(step, {})
    assert progress.clips_per_second == 1
    progress.update(11, {})  # the same step again measures nothing
    assert progress.clips_per_second == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86399, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_time_left(seconds, shown):
    clock, stream = Clock(), io.StringIO()
    progress = ProgressLine(2, clips_per_step=1, stream=stream, clock=clock)
    progress.update(0, {})
    clock.now += seconds
    progress.update(1, {})
    assert stream.getvalue().endswith(f"  {shown} left\n")


@pytest.mark.parametrize(
    ("loss", "shown"), [(123456.78, "123456.8"), (99.99, "99.99"), (0.0123, "0.01230"), (float("nan"), "nan")]
)
def test_loss_has_four_digits_or_more(loss, shown):
    stream = io.StringIO()
    ProgressLine(9, clips_per_step=1, stream=stream).update(1, {"train/loss": np.array(loss)})
    assert stream.getvalue() == f"1/9  loss {shown}\n"


@pytest.mark.parametrize(
    ("rate", "shown"), [(0.08, "0.0800"), (9.999, "10.0"), (13, "13.0"), (99.96, "100"), (1320.4, "1320")]
)
def test_speed_has_three_digits_or_more(rate, shown):
    clock, stream = Clock(), io.StringIO()
    progress = ProgressLine(9, clips_per_step=1, stream=stream, clock=clock)
    progress.update(8, {})
    clock.now += 1 / rate
    progress.update(9, {})
    assert stream.getvalue().splitlines()[1] == f"9/9  {shown} clips/s"


def test_a_terminal_shows_one_line_and_what_is_said_above_it():
    stream = Terminal()
    with ProgressLine(10, clips_per_step=1, stream=stream, clock=Clock()) as progress:
        progress.say("begins")
        progress.update(1, VALUES)
        progress.update(2, {"train/loss": 5})  # shorter
        assert stream.lines() == ["begins", " 2/10  loss 5.000"]
        progress.say("saved")
        assert stream.lines() == ["begins", "saved", " 2/10  loss 5.000"]
        progress.update(3, {"train/loss": 4})
    assert stream.lines() == ["begins", "saved", " 3/10  loss 4.000", ""]


def test_a_line_is_cut_to_the_width_of_the_terminal():
    screen, program = os.openpty()
    termios.tcsetwinsize(program, (24, 20))
    with open(program, "w") as stream:
        ProgressLine(10, clips_per_step=1, stream=stream, clock=Clock()).update(1, VALUES)
        assert os.read(screen, 1000) == b"\r 1/10  loss 4321.0 "
    os.close(screen)


def test_a_file_gets_plain_lines(capsys):
    with ProgressLine(10, clips_per_step=1) as progress:
        progress.update(1, {})
        progress.say("saved")
    assert capsys.readouterr().out == " 1/10\nsaved\n"
