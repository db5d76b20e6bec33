"""Makes from the files that a user has what training reads: TFDS's format, and low-resolution frames.

    python -m input_pipeline.prepare vimeo90k --manual_dir=DIR [--data_dir=DIR] [--val=CLIP,CLIP]
    python -m input_pipeline.prepare videos DIR [--data_dir=DIR] [--step=3] [--val=NAME,NAME] [--test=NAME,NAME]
    python -m input_pipeline.prepare vid4 --manual_dir=DIR [--data_dir=DIR]
    python -m input_pipeline.prepare lr --manual_dir=DIR --degradation=bi --out=OUT

The low-resolution tree OUT has the layout of Vimeo-90K's own: OUT/sequences/00001/0001/im1.png .. im7.png, 112x64, and
copies of the lists. OUT/degradation.json is `{"degradation": name, "scale": 4}`.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import importlib
import io
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from tqdm import tqdm

from input_pipeline import septuplets, videos
from input_pipeline.degradation import DEGRADATIONS, SCALE, Degradation, degrade
from input_pipeline.locking import alone_in
from input_pipeline.png import read_png

# Modules of input_pipeline.builders, and their builders.
SETS = {"vimeo90k": "Vimeo90k", "vid4": "Vid4", "videos": "Videos"}


def prepare(
    name: str,
    manual_dir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    val: Sequence[str] = (),
    uncompressed: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes a data set in TFDS's format, whole or not at all, and says what it wrote.

    Args:
      name: a key of `SETS`.
      manual_dir: the folder with the user's files, see the builder.
      data_dir: the folder to write it into, as NAME/VERSION; None is TFDS's default.
      val: clips of vimeo90k that become the split val instead of train, see `input_pipeline.septuplets.with_val`.
      uncompressed: store frames as uncompressed PNG, see `input_pipeline.png.encode_png`.
      overwrite: replace a set that is there already, once the new one is finished.

    Raises:
      ValueError: something wrong with the user's files, named; or another preparation of the set is running.
      OSError: a file that can't be read or written.
    """
    builder_class = _builder_class(name)
    splits = builder_class.keys(manual_dir)
    if val:
        splits = septuplets.with_val(splits, val)
    record = builder_class.digests(_with_options(splits, uncompressed=True) if uncompressed else splits)

    def build(staging):
        with tqdm(desc=f"preparing {name}", total=sum(map(len, splits.values())), unit="clip") as bar:
            return _build(builder_class, staging, manual_dir, splits, record, uncompressed, bar)

    _place(builder_class, data_dir, record, manual_dir, build, overwrite)
    _print_next_step(name, builder_class.folder(data_dir).parents[1], manual_dir)


def prepare_videos(
    folder: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    step: int = 3,
    val: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
    short_side: int = 540,
    uncompressed: bool = False,
    overwrite: bool = False,
) -> None:
    """Cuts septuplets out of a folder of videos and writes them as the set that training reads, whole or not at all.

    Args:
      folder: the folder with the videos, of any kind that FFmpeg decodes; see `input_pipeline.videos`.
      data_dir: the folder to write the set into, as vimeo90k/VERSION; None is TFDS's default.
      step: frames from the start of a septuplet to that of the next, in clips to train with; those to validate and test
        with follow one another without overlap.
      val, test: names of clips, see `input_pipeline.videos.assign_splits`.
      short_side: pixels that larger frames are reduced to.
      uncompressed: store frames as uncompressed PNG, see `input_pipeline.png.encode_png`.
      overwrite: replace a set that is there already, once the new one is finished.

    Raises:
      ValueError: an argument out of its range, no videos, none of use; or another preparation of the set is running.
      OSError: a file that can't be read or written.
    """
    if step < 1:
        raise ValueError(f"`step` (={step}) must be at least 1")
    if short_side < videos.MIN_SIDE:
        raise ValueError(f"`short_side` (={short_side}) must be at least {videos.MIN_SIDE}")
    builder_class = _builder_class("videos")
    found = videos.find_videos(folder, _tell)
    clips = videos.assign_splits([video.name for video in found], val, test)
    bytes_of = {video.name: video.path.stat().st_size for video in found}
    inputs = {split: [f"{name} {bytes_of[name]}" for name in names] for split, names in clips.items() if names}
    options = {"step": step, "short_side": short_side, "uncompressed": uncompressed}
    record = builder_class.digests(_with_options(inputs, **options))
    left_out: collections.Counter[str] = collections.Counter()

    def build(staging):
        frames = staging / "frames"
        with tqdm(desc="cutting videos", total=sum(video.frames for video in found), unit="frame") as bar:
            splits, reasons = videos.cut_videos(
                found,
                clips,
                frames,
                step=step,
                short_side=short_side,
                uncompressed=uncompressed,
                say=_tell,
                on_frame=bar.update,
            )
            left_out.update(reasons)
            bar.set_description("writing septuplets")
            bar.unit = "clip"
            bar.reset(sum(map(len, splits.values())))
            return _build(builder_class, staging, frames, splits, record, False, bar)

    if _place(builder_class, data_dir, record, folder, build, overwrite):
        reasons = ", ".join(f"{left_out[reason]} {reason}" for reason in videos.REASONS)
        print(f"left out: {sum(left_out.values())} septuplets ({reasons})")
    _print_next_step("videos", builder_class.folder(data_dir).parents[1], folder)


def _builder_class(name):
    return getattr(importlib.import_module(f"input_pipeline.builders.{name}"), SETS[name])


def _with_options(splits, **options):
    """`{split: lines}` whose digests differ where options do."""
    line = ", ".join(f"{name}={value}" for name, value in options.items())
    return {split: [*lines, line] for split, lines in splits.items()}


def _tell(line):
    tqdm.write(line, file=sys.stderr)


def _place(builder_class, data_dir, record, source, build, overwrite):
    """Gives a set its place once `build(folder)` has made it; False if there is one already, of which it tells."""
    name, target = builder_class.name, builder_class.folder(data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(target.parent):
        staging = target.parent / "incomplete.prepare"
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        if target.exists() and not overwrite:
            _report_present(builder_class, target.parents[1], record, source)
            return False
        try:
            info = build(staging)
            if target.exists():
                target.rename(staging / "replaced")
            (staging / name / target.name).rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    sizes = ", ".join(f"{split} {there.num_examples}" for split, there in info.splits.items())
    print(f"{name}: wrote {sizes} clips, {info.dataset_size / 1e9:.3g} GB, to {target}")
    return True


def _report_present(builder_class, root, record, source):
    builder = builder_class(data_dir=root)
    again = "--overwrite makes it anew"
    if not builder.is_prepared():
        raise ValueError(f"{builder.data_dir}: is there but holds no finished {builder.name}; {again}")
    print(f"{builder.name}: already prepared in {builder.data_dir}")
    then = builder.info.metadata["lists"]
    changed = [split for split in sorted(then | record) if then.get(split) != record.get(split)]
    if changed:
        what = f"{source} with these options differs from what it was made from in {', '.join(changed)}"
        print(f"{what}; {again}", file=sys.stderr)


def _build(builder_class, data_dir, manual_dir, splits, record, uncompressed, bar):
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
    builder = builder_class(data_dir=data_dir)
    builder.lists, builder.record, builder.uncompressed, builder.on_clip = splits, record, uncompressed, bar.update
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces the folder that is renamed afterwards
        builder.download_and_prepare(download_config=config)
    return builder.info


def _print_next_step(name, data_dir, manual_dir):
    if name == "vid4":
        print(f"score with: python evaluate.py --dataset=vid4 --data_dir={manual_dir} --weights=FILE")
    else:
        print(f"train with: python train.py --config=configs/msitf.py --workdir=DIR --config.data.dir={data_dir}")


def write_low_resolution(
    manual_dir: str | os.PathLike[str], out: str | os.PathLike[str], degradation: Degradation
) -> None:
    """Writes a tree of low-resolution frames, whole or not at all; goes on where an earlier run was stopped.

    Args:
      manual_dir: Vimeo-90K as it is unpacked, see `input_pipeline.septuplets`.
      out: the tree to write. It must not exist yet; until it is finished it is called OUT.part.
      degradation: see `input_pipeline.degradation.degrade`.

    Raises:
      ValueError: `out` exists, OUT.part was begun with another degradation, or a list or frame is not as it must be.
      OSError: a file that can't be read or written.
    """
    manual_dir, out = pathlib.Path(manual_dir), pathlib.Path(out)
    if out.resolve() == manual_dir.resolve():
        raise ValueError(f"`out` (={str(out)!r}) must be another folder than `manual_dir`")
    if out.exists():
        raise ValueError(f"`out` (={str(out)!r}) must not exist yet; remove it or choose another")
    splits = septuplets.read_lists(manual_dir)
    keys = list(dict.fromkeys(key for keys in splits.values() for key in keys))
    part = out.with_name(f"{out.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    with alone_in(part):
        _begin(part, {"degradation": degradation, "scale": SCALE})
        _degrade_all(manual_dir, part, keys, degradation)
        for split in splits:
            name = septuplets.LISTS[split]
            _write(part / name, (manual_dir / name).read_bytes())
        part.rename(out)
    print(f"lr: wrote {len(keys)} septuplets, degradation {degradation}, to {out}")


def _begin(part, record):
    begun = septuplets.read_degradation(part)
    if begun not in (None, record["degradation"]):
        raise ValueError(f"{part}: was begun with {begun}, not {record['degradation']}; finish it or remove it")
    _write(part / septuplets.DEGRADATION_FILE, (json.dumps(record) + "\n").encode())


def _degrade_all(manual_dir, part, keys, degradation):
    # Threads: decoding, degrading and encoding all let go of Python's lock, and threads die with the process.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = [pool.submit(_degrade_septuplet, manual_dir, part, key, degradation) for key in keys]
        try:
            for done in tqdm(concurrent.futures.as_completed(work), desc=f"degrading ({degradation})", total=len(keys)):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _degrade_septuplet(manual_dir, part, key, degradation):
    size = tuple(side // SCALE for side in septuplets.SIZE)
    for source, target in zip(septuplets.frame_paths(manual_dir, key), septuplets.frame_paths(part, key), strict=True):
        if _is_whole(target, size):
            continue
        content, _ = read_png(source, septuplets.SIZE)
        frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if frame is None:
            raise ValueError(f"frame {source}: not a readable image")
        _, small = cv2.imencode(".png", degrade(frame, degradation))
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, small.tobytes())


def _is_whole(path, size):
    try:
        read_png(path, size)
    except ValueError:
        return False
    return True


def _write(path, content):
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise type(error)(error.errno, error.strerror, str(path)) from None


def _parser():
    parser = argparse.ArgumentParser(prog="python -m input_pipeline.prepare", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    layouts = {
        "vimeo90k": "the folder that holds sequences/ and sep_trainlist.txt",
        "vid4": "the folder that holds GT/calendar/*.png and so on",
    }
    for name, layout in layouts.items():
        command = commands.add_parser(name, help=f"write {name} in TFDS's format")
        command.add_argument("--manual_dir", required=True, help=layout)
        _add_output(command)
        if name == "vimeo90k":
            command.add_argument(
                "--val", type=_names, default=(), metavar="CLIP,CLIP", help="clips to validate with instead of to train"
            )
    command = commands.add_parser("videos", help="cut a folder of videos into septuplets to train with")
    command.add_argument("folder", metavar="DIR", help="the folder of videos; folders in it are searched too")
    _add_output(command)
    command.add_argument(
        "--step", type=int, default=3, help="frames from one septuplet to the next in train (default: 3)"
    )
    for split, what in (("val", "validate"), ("test", "test")):
        command.add_argument(
            f"--{split}",
            type=_names,
            metavar="NAME,NAME",
            help=f"videos to {what} with, paths in DIR without suffix (default: one in twenty)",
        )
    command.add_argument(
        "--short_side", type=int, default=540, help="reduce larger frames to so many pixels (default: 540)"
    )
    command = commands.add_parser("lr", help="write low-resolution frames of vimeo90k")
    command.add_argument("--manual_dir", required=True, help=layouts["vimeo90k"])
    command.add_argument("--degradation", required=True, choices=DEGRADATIONS)
    command.add_argument("--out", required=True, help="the folder to write; must not exist yet")
    return parser


def _add_output(command):
    command.add_argument("--data_dir", help="where to write it (default: ~/tensorflow_datasets)")
    command.add_argument("--overwrite", action="store_true", help="make it anew if it is there already")
    command.add_argument(
        "--uncompressed", action="store_true", help="store frames as uncompressed PNG: twice the disk, read much faster"
    )


def _names(text):
    return [name for name in text.split(",") if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        if command == "lr":
            write_low_resolution(**options)
        elif command == "videos":
            prepare_videos(**options)
        else:
            prepare(command, **options)
    except (ValueError, OSError) as error:
        print(f"prepare {command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
