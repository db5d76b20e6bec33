"""Runs of the training loop: going on bit for bit, the files they leave, and what stops them."""

import dataclasses
import os
import re
import shutil
import signal

import cv2
import jax
import numpy as np
import pytest
from flax import nnx

import evaluate
from input_pipeline import synthetic
from msitf_jax import MSITFConfig, weights
from msitf_jax.training import loop, writers
from msitf_jax.weights import margin
from msitf_jax.weights.files import save_torch
from tests.test_benchmark import write_clip
from tests.tiny_network import TINY_FLOW, quick_compilation, tiny_network
from tests.training import assert_same_files, assert_same_state, configuration, train, uninterrupted


def checkpoint_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def after_step(monkeypatch, number, action):
    """Does something in the middle of a run: when step `number` is done, but not looked at yet."""
    original = loop._Run._train_step

    def train_step(run):
        original(run)
        if run.done == number:
            action(run)

    monkeypatch.setattr(loop._Run, "_train_step", train_step)


def poison(run):
    params = jax.tree.map(
        lambda leaf: jax.device_put(np.full(leaf.shape, np.nan, leaf.dtype), leaf.sharding), run.state.params
    )
    run.state = dataclasses.replace(run.state, params=params)


def test_a_checkpoint_of_an_endless_run_along_the_flow_is_cooled_down(tmp_path, monkeypatch):
    monkeypatch.setattr(margin, "measure", lambda model: 40)
    flow = {f"model.{name}": value for name, value in vars(TINY_FLOW).items()}
    endless = flow | {"optimizer.schedule": "constant", "ema_decay": 0.9, "num_train_steps": 4}
    endless |= {"optimizer.name": "muon", "data.frames": 3, "data.thirds": 0.5}
    train(tmp_path / "endless", **endless)
    (tmp_path / "cooled" / "checkpoints").mkdir(parents=True)
    shutil.copytree(tmp_path / "endless/checkpoints/4", tmp_path / "cooled/checkpoints/4")
    cooled = {"num_train_steps": 8, "optimizer.cooldown": 4, "loss": "squares"}
    state, _ = train(tmp_path / "cooled", **endless | cooled)
    assert int(state.step) == 8
    records = writers.read_metrics(tmp_path / "cooled" / "metrics.jsonl")
    rates = {record["step"]: record["train/learning_rate"] for record in records if "train/loss" in record}
    assert rates == pytest.approx({6: 1e-3 / 2 + 1e-7 / 2, 8: 1e-7}, rel=1e-5)
    assert weights.load(tmp_path / "cooled" / "model.safetensors").config == TINY_FLOW
    with pytest.raises(ValueError, match=r"^`optimizer\.name` \(='adam'\): the run in .* was begun with 'muon'"):
        train(tmp_path / "cooled", **endless | {"optimizer.name": "adam"})


def test_a_run_learns_and_logs_under_the_documented_names():
    workdir, state, scores = uninterrupted()
    records = writers.read_metrics(workdir / "metrics.jsonl")
    assert [record["step"] for record in records] == [0, 2, 3, 4, 6, 6]
    train_names = {"step", "train/loss", "train/psnr", "train/grad_norm", "train/learning_rate"}
    eval_names = {"psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized", "psnr_y_base", "ssim_y_base"}
    assert [set(record) for record in records if "train/loss" in record] == [train_names] * 3
    assert [set(record) for record in records if "train/loss" not in record] == [
        {"step"} | {f"eval/{name}" for name in eval_names}
    ] * 3
    assert scores == {name.removeprefix("eval/"): value for name, value in records[-1].items() if name != "step"}
    assert int(state.step) == 6
    # Cosine from 1e-3 to 1e-7 in 10 steps.
    assert records[4]["train/learning_rate"] == pytest.approx(1e-7 + (1e-3 - 1e-7) * (1 + np.cos(0.6 * np.pi)) / 2)
    assert checkpoint_steps(workdir) == [2, 4, 6]


def test_a_run_on_pairs_of_frames_and_picked_crops(tmp_path, capsys):
    changes = {"data.frames": 2, "data.crop_candidates": 3, "num_train_steps": 2, "log_every": 1}
    # A step of its own, as others look at how often theirs is compiled.
    changes["optimizer.b1"] = 0.8
    state, scores = train(tmp_path, **changes)
    assert int(state.step) == 2
    losses = [
        record["train/loss"] for record in writers.read_metrics(tmp_path / "metrics.jsonl") if "train/loss" in record
    ]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    # Validation is on whole clips as ever, and says of which split.
    said = capsys.readouterr()
    assert f"step 2: 1 validation clips (test), PSNR-Y {scores['psnr_y']:.3f} dB" in said.out + said.err


def test_thirds_are_refused_for_a_network_without_times(tmp_path):
    with pytest.raises(ValueError, match=r'^`data\.thirds` \(=0\.5\) must be 0 with `model\.alignment` "pcd"'):
        train(tmp_path, **{"data.frames": 3, "data.thirds": 0.5, "num_train_steps": 1})


def test_a_run_leaves_a_report_and_a_table_of_parameters():
    workdir, state, _ = uninterrupted()
    assert cv2.imread(str(workdir / "report.png")).shape[1] >= 1600
    table = (workdir / "parameters.txt").read_text()
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"Total: {count:,}" in table
    assert "trunk/groups/0/blocks/0/attn/logit_scale" in table
    assert not list(workdir.glob(".*"))


def test_the_weights_are_those_of_the_last_step(tmp_path, capsys):
    workdir, state, _ = uninterrupted()
    path = workdir / "model.safetensors"
    model = weights.load(path)
    assert_same_state(nnx.state(model, nnx.Param), state.params)
    metadata = weights.read_metadata(path)
    assert metadata["degradation"] == "bd_matlab"
    assert metadata["training_step"] == "6"
    with quick_compilation():
        assert metadata["tile_margin"] == str(margin.measure(model))
    write_clip(tmp_path / "clips" / "one", synthetic.clip(0, height=32, width=48))
    assert evaluate.main([f"--dataset={tmp_path / 'clips'}", f"--weights={path}"]) == 0
    assert "one" in capsys.readouterr().out


def test_compiles_the_step_once(tmp_path, monkeypatch):
    uninterrupted()
    sizes = []
    after_step(monkeypatch, 3, lambda run: sizes.append((run.train_step._cache_size(), run.eval_step._cache_size())))
    train(tmp_path, **{"num_train_steps": 3})
    assert sizes == [(1, 1)]


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_stops_in_the_middle_of_an_interval_and_goes_on_to_the_same_bits(which, tmp_path, monkeypatch, capsys):
    expected, state, scores = uninterrupted()
    before = signal.getsignal(which)
    with monkeypatch.context() as patch:
        after_step(patch, 3, lambda run: os.kill(os.getpid(), which))
        stopped, nothing = train(tmp_path)
    assert nothing is None
    assert int(stopped.step) == 3
    assert "stopped, step 3 is saved; the same command goes on from there" in capsys.readouterr().out
    assert not (tmp_path / "model.safetensors").exists()
    assert signal.getsignal(which) == before
    resumed, same_scores = train(tmp_path)
    assert "going on from step 3" in capsys.readouterr().out
    assert_same_state(resumed, state)
    assert same_scores == scores
    assert_same_files(tmp_path, expected)


@pytest.mark.slow
def test_average_goes_on_and_is_what_is_saved(tmp_path):
    changes = {"ema_decay": 0.5, "optimizer.max_grad_norm": 100.0, "num_train_steps": 3, "eval_clips": 0}
    state, scores = train(tmp_path / "whole", **changes)
    assert scores == {}
    train(tmp_path / "parts", **changes | {"num_train_steps": 2, "log_every": 3})
    resumed, _ = train(tmp_path / "parts", **changes)
    assert_same_state(resumed, state)
    assert_same_state(nnx.state(weights.load(tmp_path / "parts" / "model.safetensors"), nnx.Param), state.ema)
    with pytest.raises(AssertionError):
        assert_same_state(state.ema, state.params)
    with pytest.raises(
        ValueError, match=r"^`ema_decay` \(=None\): the run in .* was begun with 0.5, expected the same"
    ):
        train(tmp_path / "parts", **changes | {"ema_decay": None})


def test_a_finished_run_is_finished_again_and_may_be_prolonged(tmp_path, capsys):
    train(tmp_path, **{"num_train_steps": 4})
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "report.png").unlink()
    lines = (tmp_path / "metrics.jsonl").read_bytes()
    train(tmp_path, **{"num_train_steps": 4})
    assert (tmp_path / "report.png").exists()
    assert weights.read_metadata(tmp_path / "model.safetensors")["training_step"] == "4"
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines
    state, _ = train(tmp_path, **{"seed": 5, "data.threads": 1})
    assert int(state.step) == 6
    output = capsys.readouterr().out
    assert "`num_train_steps` is 6 from step 4 on, before 4\n" in output
    assert "`seed` is 5 from step 4 on, before 0\n" in output
    assert "`data.threads` is 1 from step 4 on, before 2\n" in output


def test_the_checkpoint_of_another_network_is_refused():
    workdir, _, _ = uninterrupted()
    with pytest.raises(ValueError, match=r"^`model.mlp_ratio` \(=3\): the run in .* was begun with 2, expected"):
        train(workdir, **{"model.mlp_ratio": 3})
    assert checkpoint_steps(workdir) == [2, 4, 6]


def test_starts_from_exactly_the_given_weights(tmp_path, monkeypatch):
    model = tiny_network(MSITFConfig(**configuration().model))
    save_torch(model, tmp_path / "given.pth")
    seen = []
    monkeypatch.setattr(loop._Run, "_introduce", lambda run: seen.append(jax.device_get(run.state.params)))
    train(tmp_path / "run", **{"init_from": str(tmp_path / "given.pth"), "num_train_steps": 1, "eval_clips": 0})
    # What the published format can't hold is not learned anew: it stays as `weights.load` reads it.
    assert_same_state(seen[0], nnx.state(weights.load(tmp_path / "given.pth"), nnx.Param))


def test_weights_of_another_network_are_refused(tmp_path):
    path = uninterrupted()[0] / "model.safetensors"
    with pytest.raises(ValueError, match=r"^`init_from` \(='.*'\): was made with `model.trunk_groups` 1, expected 2"):
        train(tmp_path / "run", **{"init_from": str(path), "model.trunk_groups": 2})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_not_finite_names_the_step_and_keeps_the_last_good_checkpoint(step, tmp_path, monkeypatch):
    # A loss is looked at a step late, or when something is to be logged or saved: steps 3, and 4, 6.
    original = loop._Run._train_step

    def train_step(run):
        if run.done == step - 1:
            poison(run)
        original(run)

    monkeypatch.setattr(loop._Run, "_train_step", train_step)
    with pytest.raises(loop.NotFinite) as caught:
        train(tmp_path, **{"eval_clips": 0})
    monkeypatch.undo()
    kept = [number for number in (2, 4) if number < step]
    assert checkpoint_steps(tmp_path) == kept
    last = f"last checkpoint: {tmp_path / 'checkpoints' / str(kept[-1])}" if kept else "there is no checkpoint yet"
    assert str(caught.value).startswith(f"grad_norm and loss and psnr not finite at step {step}; {last}. Try a lower")
    assert "--config.optimizer.learning_rate" in str(caught.value)
    assert not (tmp_path / "model.safetensors").exists()
    records = writers.read_metrics(tmp_path / "metrics.jsonl") if kept else []
    assert [record["step"] for record in records] == kept


@pytest.mark.slow
def test_a_learning_rate_that_is_far_too_high_is_noticed(tmp_path):
    changes = {"optimizer.learning_rate": 1e30, "optimizer.min_learning_rate": 0.0, "eval_clips": 0}
    with pytest.raises(loop.NotFinite, match="not finite at step 2; there is no checkpoint yet"):
        train(tmp_path, **changes)


def test_a_failure_is_not_hidden_by_what_closing_raises(tmp_path, monkeypatch):
    def then_fail(close):
        def closes(self):
            close(self)
            raise OSError("while closing")

        return closes

    after_step(monkeypatch, 1, poison)
    for kind in (loop.checkpoints.Checkpoints, writers.RunLog):
        monkeypatch.setattr(kind, "close", then_fail(kind.close))
    with pytest.raises(loop.NotFinite):
        train(tmp_path, **{"eval_clips": 0})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_train_steps", 0, "must be at least 1"),
        ("num_train_steps", None, "(=None) must be set"),
        ("eval_clips", 10**30, "must be at most 9223372036854775807"),
        ("log_every", 0, "must be at least 1"),
        ("keep_last", 0, "must be at least 1"),
        ("eval_clips", -1, "must be 0 or more"),
        ("seed", -1, "must be 0 or more"),
        ("seed", 2**32, "must be from 0 to 2**32 - 1"),
        ("batch_size", 0, "must be at least 1"),
        ("compute_dtype", "float16", "must be one of float32, bfloat16"),
        ("ema_decay", 1.0, "must be between 0 and 1"),
        ("loss", "mse", "must be one of charbonnier, squares"),
        ("initialization", "zeros", "must be one of published, he"),
        ("optimizer.learning_rate", 0.0, "must be above 0"),
        ("optimizer.learning_rate", float("nan"), "must be above 0"),
        ("optimizer.min_learning_rate", 1.0, "must be from 0 to `optimizer.learning_rate` (=0.001)"),
        ("optimizer.period", 0, "must be above 0"),
        ("optimizer.warmup", -1, "must be 0 or more"),
        ("optimizer.cooldown", -1, "must be 0 or more"),
        ("optimizer.name", "sgd", "must be one of adam, muon"),
        ("optimizer.schedule", "linear", "must be one of cosine, constant"),
        ("optimizer.b1", 1.0, "must be at least 0 and below 1"),
        ("optimizer.max_grad_norm", 0.0, "must be above 0"),
        ("mesh.model", 3, "must divide the number of devices, 1"),
        ("data.crop", 17, "(=64) must be a multiple of 4, at least 4 * `data.crop` (=68)"),
        ("data.degradation", "blur", "must be one of"),
        ("data.dir", "/nowhere", "/nowhere"),
        ("model.channels", 9, "must be divisible by"),
        ("model.interpolation", "last", "must be one of first, mean, both"),
        ("init_from", "/nowhere.pth", "no such file"),
    ],
)
def test_values_out_of_range_are_named_before_anything_is_written(field, value, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        train(tmp_path / "run", **{field: value})
    assert "\n" not in str(caught.value)
    assert field.split(".")[-1] in str(caught.value) or str(value) in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", [".", "metrics.jsonl", "checkpoints"])
def test_what_stands_in_the_way_is_named(place, tmp_path):
    path = tmp_path / "run" / place
    if place == "metrics.jsonl":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("a file")
    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        train(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_unknown_fields_are_named(tmp_path):
    config = configuration()
    config.unlock()
    config.model.colour = 3
    with pytest.raises(ValueError, match=r"^`model.colour`: no such field, expected one of alignment, base, channels"):
        loop.train_and_evaluate(config, tmp_path / "run")
