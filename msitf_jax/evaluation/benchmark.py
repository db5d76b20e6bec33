"""Scores a method on clips of frames: degrade every other frame, upscale, compare with the full-rate original."""

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from input_pipeline.degradation import DEGRADATIONS, SCALE, Degradation, degrade
from msitf_jax import atomic, methods
from msitf_jax.atomic import FilePath
from msitf_jax.evaluation import report
from msitf_jax.evaluation.clips import FrameFolder, Frames, find_clips
from msitf_jax.evaluation.metrics import luma, psnr, ssim
from msitf_jax.evaluation.windows import Rule, windows
from msitf_jax.methods import Method
from msitf_jax.model.precision import ComputeDtype

Scores: TypeAlias = dict[str, float]
DEFAULT_DEGRADATION: Degradation = "bd_matlab"
MOST_ROWS = 20  # of more clips only the mean is printed


def run(
    dataset: FilePath,
    *,
    data_dir: FilePath | None = None,
    weights: FilePath,
    degradation: Degradation | None = None,
    frames: Rule = "published",
    compute_dtype: ComputeDtype = "float32",
    json: FilePath | None = None,
    save_images: FilePath | None = None,
) -> dict[str, Any]:
    """All of `evaluate.py`: finds the clips, scores them, prints the table, or its last row if it would be long.

    Args:
      dataset, data_dir: see `msitf_jax.evaluation.clips.find_clips`.
      weights, compute_dtype: see `msitf_jax.methods.method`.
      degradation: None is what the weights were made for, or "bd_matlab" if that isn't known.
      frames: which count, see `msitf_jax.evaluation.windows.windows`.
      json: file for the report, or None.
      save_images: folder for the outputs that count, see `evaluate`, or None.

    Returns:
      The report, as written to `json`.

    Raises:
      ValueError: whatever is wrong with the arguments and the files they name, before anything is scored.
      OSError: a file that can't be read or written.
    """
    clips, absent = find_clips(dataset, data_dir)
    if json is not None:
        _check_json(json)
    if absent:
        print(f"not in {data_dir} and left out of the mean: {', '.join(absent)}", file=sys.stderr)
    degradation = _choose_degradation(weights, degradation)
    method = methods.method(weights, compute_dtype)
    scores = evaluate(clips, method, degradation=degradation, rule=frames, save_images=save_images)
    head = {"dataset": str(dataset), "degradation": degradation, "frames_rule": frames, "weights": str(weights)}
    title = f"{dataset}, weights {weights}, degradation {degradation}, frames {frames}"
    if compute_dtype != "float32":
        head["compute_dtype"] = compute_dtype
        title += f", computed in {compute_dtype}"
    if json is not None:
        report.write_json(json, head | scores)
    print(title)
    print(report.table(scores["clips"] if len(clips) <= MOST_ROWS else {}, scores["mean"]))
    return head | scores


def _check_json(path):
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"`json` (={str(path)!r}) must be a file in a folder that exists")


def _choose_degradation(name, asked):
    made_for = methods.made_for(name)
    if made_for and asked and made_for != asked:
        print(f"warning: these weights were made for {made_for}, and {asked} is asked for", file=sys.stderr)
    if made_for and not asked and made_for not in DEGRADATIONS:
        raise ValueError(
            f"weights {name}: made for {made_for!r}, expected one of {', '.join(DEGRADATIONS)}; choose one"
        )
    return asked or made_for or DEFAULT_DEGRADATION


def evaluate(
    clips: Sequence[FrameFolder],
    method: Method,
    *,
    degradation: Degradation,
    rule: Rule,
    save_images: FilePath | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Scores a method on several clips, after a look at all frames so that nothing fails halfway.

    Args:
      clips: `FrameFolder`s, at least one.
      method, degradation, rule: see `score_clip`.
      save_images: a folder for the outputs that count, as CLIP/FRAME.png with the original frame's name, or None.
      progress: show a progress bar on standard error.

    Returns:
      `{"clips": {name: scores}, "mean": scores}`, the mean over clips; its "frames" are the total.

    Raises:
      ValueError: a clip too short for one window, a frame that is unreadable or of another size, or outputs that would
        replace the originals; named.
    """
    for clip in clips:
        _windows(clip, rule, clip.name)
        if save_images is not None:
            _prepare_folder(save_images, clip)
    for clip in tqdm(clips, desc="checking", unit="clip", leave=False, disable=not progress):
        clip.check()

    results = {}
    total = sum(len(window.scored) for clip in clips for window in windows(len(clip), rule))
    with tqdm(total=total, unit="frame", disable=not progress) as bar:
        for clip in clips:
            bar.set_description(clip.name)

            def on_frame(index, output, clip=clip):
                if save_images is not None:
                    path = pathlib.Path(save_images) / clip.name / f"{clip.paths[index].stem}.png"
                    atomic.write_image(path, output)
                bar.update()

            results[clip.name] = score_clip(
                clip, method, degradation=degradation, rule=rule, name=clip.name, on_frame=on_frame
            )
    mean = {key: float(np.mean([scores[key] for scores in results.values()])) for key in results[clips[0].name]}
    return {"clips": results, "mean": mean | {"frames": total}}


def score_clip(
    truth: Frames,
    method: Method,
    *,
    degradation: Degradation,
    rule: Rule,
    name: str = "of frames",
    on_frame: Callable[[int, npt.NDArray[np.uint8]], object] | None = None,
) -> Scores:
    """Scores one clip.

    Args:
      truth: the full-rate clip, a sequence of `[H, W, 3]` uint8 RGB frames of one size.
      method: see `msitf_jax.methods.method`.
      degradation: see `input_pipeline.degradation.degrade`.
      rule: which frames count, see `msitf_jax.evaluation.windows.windows`.
      name: the clip's, for errors.
      on_frame: called with (index, `[4h, 4w, 3]` uint8 output) for every frame that counts, in order.

    Returns:
      `{"frames", "psnr_rgb", "psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized"}`: how many frames count, and
      means over them in dB; the last two over the frames at and between the inputs' times.

    Raises:
      ValueError: a clip too short for one window.
    """
    scores = []
    for window in _windows(truth, rule, name):
        frames = {index: truth[index] for index in window.outputs}
        outputs = method(np.stack([degrade(frames[index], degradation) for index in window.inputs]))
        for index in window.scored:
            output = outputs[index - window.outputs.start]
            scores.append((index, *_score_frame(output, frames[index])))
            if on_frame:
                on_frame(index, output)
    return _means(scores)


def score_outputs(outputs: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> Scores:
    """Scores frames that are at hand, of which every other one, from the first on, lies at an input's time.

    Args:
      outputs, truth: `[2N-1, H, W, 3]` uint8 RGB, N at least 2.

    Returns:
      See `score_clip`.
    """
    return _means([(index, *_score_frame(*pair)) for index, pair in enumerate(zip(outputs, truth, strict=True))])


def _means(scores):
    index, psnr_rgb, psnr_y, ssim_y = np.array(scores).T
    return {
        "frames": len(scores),
        "psnr_rgb": float(psnr_rgb.mean()),
        "psnr_y": float(psnr_y.mean()),
        "ssim_y": float(ssim_y.mean()),
        "psnr_y_input": float(psnr_y[index % 2 == 0].mean()),
        "psnr_y_synthesized": float(psnr_y[index % 2 == 1].mean()),
    }


def _windows(clip, rule, name):
    found = windows(len(clip), rule)
    if not found:
        needed = 7 if rule == "published" else 3
        raise ValueError(f"clip {name}: has {len(clip)} frames, expected at least {needed} for frames={rule}")
    return found


def _prepare_folder(save_images, clip):
    folder = pathlib.Path(save_images) / clip.name
    if folder.resolve() == clip.folder.resolve():
        raise ValueError(f"`save_images` (={str(save_images)!r}) must not be where the original frames are")
    folder.mkdir(parents=True, exist_ok=True)


def _score_frame(output, truth):
    truth = truth[: len(truth) // SCALE * SCALE, : truth.shape[1] // SCALE * SCALE]
    output_y, truth_y = luma(output), luma(truth)
    return psnr(output, truth), psnr(output_y, truth_y), ssim(output_y, truth_y)
