"""The parts of the program that damaged files are given to, in a process of its own.

    python -m tests.faults.subjects NAME FOLDER

Reads paths from standard input, a line of JSON each, and answers with a line of JSON, see `trials.Outcome`.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import resource
import shutil
import sys
import traceback

import jax
import numpy as np
from absl import app
from flax import nnx

import evaluate
import train
from input_pipeline import prepare
from msitf_jax import cli, weights
from msitf_jax.cli import upscale
from msitf_jax.training import loop
from msitf_jax.video import sinks

SEGMENT = 6  # frames, of `unfinished_job`

_MOST_MEMORY = 12 << 30  # bytes of addresses, so that sizes that nobody has fail as they would


def frame_to_upscale(path, folder):
    """A frame in a folder that is upscaled."""
    return _upscale(path.parent, folder / "upscaled")


def frame_to_score(path, folder):
    """A frame of a clip that is scored."""
    scores = folder / "scores.json"
    status = evaluate.main([f"--dataset={path.parents[1]}", "--weights=trilinear", f"--json={scores}"])
    return status, lambda: _files(scores)


def frame_to_prepare(path, folder):
    """A frame of Vimeo-90K that is made small."""
    output = folder / "low"
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(folder / "low.part", ignore_errors=True)
    status = prepare.main(["lr", f"--manual_dir={path.parents[3]}", f"--out={output}", "--degradation=bi"])
    return status, lambda: _files(output)


def video(path, folder):
    """A video that is upscaled into a file, with its sound."""
    return _upscale(path, folder / "upscaled.mkv")


def unfinished_job(path, folder):
    """A file among those that an interrupted job has left; `folder` holds the job's clip."""
    output = folder / "upscaled.mkv"
    unfinished = output.with_name(f"{output.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(path.parent, unfinished)
    sinks.SEGMENT = SEGMENT
    status = cli.main(["upscale", str(folder / "clip.mkv"), str(output), "--weights=bicubic", "--overwrite"])
    return status, lambda: _files(output)


def checkpoint(path, folder):
    """A file of a training run's only checkpoint, `workdir/checkpoints/STEP/...`; the run is gone on with."""
    workdir = next(parent.parent for parent in path.parents if parent.name == "checkpoints")
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.copytree(workdir, folder / "run")
    return _train("tests/tiny_config.py", folder / "run")


def configuration(path, folder):
    """A configuration file, which is a program."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    return _train(path, folder / "run")


def _train(config, workdir):
    """train.py up to its first step, with what that is given as the result."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    sys.argv = ["train.py", f"--config={config}", f"--workdir={workdir}"]
    loop.step.make_train_step = lambda *_, **__: _stop_here
    try:
        app.run(train.main, flags_parser=train._parse)
    except _Started as started:
        arguments = started.args
        return 0, lambda: _arrays(arguments)
    except SystemExit as end:
        return end.code, None


class _Started(BaseException):
    pass


def _stop_here(state, batch):
    raise _Started(vars(state), batch)


def weight_file(path, folder):
    """Weights that are loaded."""

    def load():
        return _arrays(nnx.state(weights.load(path), nnx.Param))

    output = folder / "converted.safetensors"
    note = "--note=tile_margin=24"  # or it is measured each time
    return cli.main(["convert", str(path), str(output), note]), load


def _upscale(source, output):
    shutil.rmtree(output.with_name(f"{output.name}.part"), ignore_errors=True)  # of another input
    status = cli.main(["upscale", str(source), str(output), "--weights=bicubic", "--overwrite"])
    return status, lambda: _files(output)


def _files(path):
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {file.name: np.frombuffer(file.read_bytes(), np.uint8) for file in files}


def _arrays(tree):
    return {jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in jax.tree.leaves_with_path(tree)}


def _digest(arrays):
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return total.hexdigest()


def _names(said, path, folder):
    """Whether a sentence names the file, its folders, where a copy of it lies, or an argument with its value."""
    return re.search(r"`\w", said) or any(str(part) in said for part in (path, *path.parents[:2], folder))


def attempt(subject, path, folder):
    """`Outcome`'s fields of one trial."""
    out, error = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            status, result = subject(path, folder)
            if status == 0:
                return {"kind": "taken", "text": _digest(result())}
    except BaseException:
        return {"kind": "traceback", "text": traceback.format_exc()}
    # After warnings and progress; further lines list what is wrong with tensors.
    sentence = re.findall(r"^(?:msitf \w+|\w+\.py|prepare \w+): (.*)", error.getvalue(), re.MULTILINE)
    clear = status == 2 and len(sentence) == 1 and _names(sentence[0], path, folder) and "Errno" not in sentence[0]
    return {"kind": "refused" if clear else "mumbled", "text": f"{status}: {error.getvalue()[-2000:]}"}


def attempt_apart(subject, path, folder):
    """`attempt` in a process of its own, for what leaves something behind in it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(writing, "w") as answer:
            json.dump(attempt(subject, path, folder), answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {"kind": "died", "text": f"wait status {status}"}


def main(name, folder):
    subject = globals()[name]
    tries = attempt_apart if subject in (checkpoint, configuration) else attempt
    upscale.keep_compiled = lambda: None
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        answer = tries(subject, pathlib.Path(json.loads(line)), pathlib.Path(folder))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
