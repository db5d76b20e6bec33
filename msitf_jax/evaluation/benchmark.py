"""Scores a method on clips of frames: degrade every other frame, upscale, compare with the full-rate original."""

import os
import pathlib
import re

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline.degradation import SCALE, degrade
from msitf_jax.evaluation.metrics import luma, psnr, ssim
from msitf_jax.evaluation.windows import LENGTH, windows

VID4 = ("calendar", "city", "foliage", "walk")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SMALLEST = 12  # pixels; SSIM's window is 11


class FrameFolder:
    """The frames of one clip on disk, read when asked for: `len(clip)`, `clip[i]` is `[H, W, 3]` uint8 RGB."""

    def __init__(self, folder):
        self.name = folder.name
        found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        # im2 comes before im10.
        self.paths = sorted(
            found, key=lambda path: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", path.name)]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        content = np.fromfile(self.paths[index], np.uint8)
        frame = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB) if content.size else None
        if frame is None:
            raise ValueError(f"frame {self.paths[index]}: not a readable image")
        return frame

    def check(self):
        """Raises ValueError, naming the frame, if one is unreadable, too small, or of another size than the first."""
        shape = None
        for path, frame in zip(self.paths, self, strict=True):
            shape = shape or frame.shape
            if frame.shape != shape:
                raise ValueError(
                    f"frame {path}: is {frame.shape[1]}x{frame.shape[0]}, "
                    f"expected {shape[1]}x{shape[0]} as {self.paths[0].name}"
                )
            if min(frame.shape[:2]) < SMALLEST:
                raise ValueError(
                    f"frame {path}: is {frame.shape[1]}x{frame.shape[0]}, expected at least {SMALLEST}x{SMALLEST}"
                )


def find_clips(dataset, data_dir=None):
    """Finds a data set's clips.

    Args:
      dataset: "vid4", whose clips are `data_dir/GT/CLIP/*.png`, or a folder with one folder of frames a clip.
      data_dir: for "vid4" only.

    Returns:
      (clips, absent): a list of `FrameFolder` in order of their names, and the names of Vid4 clips that are not there.

    Raises:
      ValueError: no such folder, or no clips in it.
    """
    if dataset == "vid4":
        if data_dir is None:
            raise ValueError(
                "`data_dir` (=None) must be the folder that holds GT/calendar/*.png and so on, for dataset vid4"
            )
        root = pathlib.Path(data_dir) / "GT"
        folders = [root / name for name in VID4 if (root / name).is_dir()]
        absent = [name for name in VID4 if not (root / name).is_dir()]
    elif data_dir is not None:
        raise ValueError(
            f"`data_dir` (={str(data_dir)!r}) goes with dataset vid4; a folder of clips is the dataset itself"
        )
    else:
        root, absent = pathlib.Path(dataset), []
        if not root.is_dir():
            raise ValueError(
                f"`dataset` (={str(dataset)!r}) must be vid4 or a folder that holds one folder of frames a clip"
            )
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    clips = [clip for clip in map(FrameFolder, folders) if len(clip)]
    if not clips:
        raise ValueError(f"no clips in {root}: expected one folder a clip with frames ({', '.join(IMAGE_SUFFIXES)})")
    return clips, absent


def score_clip(truth, method, *, degradation, rule, on_frame=None):
    """Scores one clip.

    Args:
      truth: the full-rate clip, a sequence of `[H, W, 3]` uint8 RGB frames of one size.
      method: see `msitf_jax.evaluation.methods.method`.
      degradation: see `input_pipeline.degradation.degrade`.
      rule: which frames count, see `msitf_jax.evaluation.windows.windows`.
      on_frame: called with (index, `[4h, 4w, 3]` uint8 output) for every frame that counts, in order.

    Returns:
      `{"frames", "psnr_rgb", "psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized"}`: how many frames count, and
      means over them in dB; the last two over the frames at and between the inputs' times.
    """
    scores = []
    for window in windows(len(truth), rule):
        frames = {index: truth[index] for index in window.outputs}
        outputs = method(np.stack([degrade(frames[index], degradation) for index in window.inputs]))
        for index in window.scored:
            output = outputs[index - window.outputs.start]
            scores.append((index, *_score_frame(output, frames[index])))
            if on_frame:
                on_frame(index, output)
    index, psnr_rgb, psnr_y, ssim_y = np.array(scores).T
    return {
        "frames": len(scores),
        "psnr_rgb": float(psnr_rgb.mean()),
        "psnr_y": float(psnr_y.mean()),
        "ssim_y": float(ssim_y.mean()),
        "psnr_y_input": float(psnr_y[index % 2 == 0].mean()),
        "psnr_y_synthesized": float(psnr_y[index % 2 == 1].mean()),
    }


def _score_frame(output, truth):
    truth = truth[: len(truth) // SCALE * SCALE, : truth.shape[1] // SCALE * SCALE]
    output_y, truth_y = luma(output), luma(truth)
    return psnr(output, truth), psnr(output_y, truth_y), ssim(output_y, truth_y)


def evaluate(clips, method, *, degradation, rule, save_images=None, progress=True):
    """Scores a method on several clips, after a look at all frames so that nothing fails halfway.

    Args:
      clips: `FrameFolder`s.
      method, degradation, rule: see `score_clip`.
      save_images: a folder for the outputs that count, as CLIP/FRAME.png with the original frame's name, or None.
      progress: show a progress bar on standard error.

    Returns:
      `{"clips": {name: scores}, "mean": scores}`, the mean over clips; its "frames" are the total.

    Raises:
      ValueError: a clip too short for one window, or a frame that is unreadable or of another size; named.
    """
    planned = 0
    for clip in clips:
        scored = sum(len(window.scored) for window in windows(len(clip), rule))
        if not scored:
            needed = LENGTH if rule == "published" else 3
            raise ValueError(f"clip {clip.name}: has {len(clip)} frames, expected at least {needed} for frames={rule}")
        planned += scored
    for clip in tqdm(clips, desc="checking", unit="clip", leave=False, disable=not progress):
        clip.check()

    results = {}
    with tqdm(total=planned, unit="frame", disable=not progress) as bar:
        for clip in clips:
            bar.set_description(clip.name)

            def on_frame(index, output, clip=clip):
                if save_images is not None:
                    _save_image(pathlib.Path(save_images) / clip.name / f"{clip.paths[index].stem}.png", output)
                bar.update()

            results[clip.name] = score_clip(clip, method, degradation=degradation, rule=rule, on_frame=on_frame)
    mean = {key: float(np.mean([scores[key] for scores in results.values()])) for key in next(iter(results.values()))}
    mean["frames"] = planned
    return {"clips": results, "mean": mean}


def _save_image(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    _, content = cv2.imencode(".png", frame[..., ::-1])
    content.tofile(temporary)
    os.replace(temporary, path)
