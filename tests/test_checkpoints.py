"""Which checkpoints are kept, and what becomes of those that are not whole."""

import dataclasses
import functools
import gc
import json
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from msitf_jax import MSITFConfig, cli, sharding, weights
from msitf_jax.training import checkpoints, state
from msitf_jax.weights import margin
from tests.tiny_network import TINY, tiny_network
from tests.training import ROOT, assert_same_state, environment

# Where one array can't be restored, Orbax leaves the others to themselves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine .* was never awaited:RuntimeWarning",
)


@pytest.fixture
def opened(tmp_path):
    """Opens the checkpoints below `tmp_path`, and closes them after the test."""
    managers = []

    def open_checkpoints(keep_last=3, keep_best=0):
        managers.append(checkpoints.Checkpoints(tmp_path, keep_last=keep_last, keep_best=keep_best))
        return managers[-1]

    yield open_checkpoints
    for manager in managers:
        manager.close()
    gc.collect()  # so that what is left is told while `pytestmark` holds


def numbered(step, size=5):
    """A state that differs from step to step."""
    leaf = jnp.arange(size, dtype=jnp.float32) + step
    return state.TrainState(jnp.int32(step), {"w": leaf}, ({"m": 2 * leaf}, ()), None, jnp.array([0, step], jnp.uint32))


def large():
    """A state with an array that a mesh cuts up."""
    return numbered(3, size=8192)


def restored_from(workdir, mesh):
    """What `large` was saved as, put on a mesh."""
    manager = checkpoints.Checkpoints(workdir, keep_last=1, keep_best=0)
    like = large()
    restored = manager.restore(1, checkpoints.abstract(like, sharding.state_shardings(mesh, like)))
    manager.close()
    return restored


def places(like):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return checkpoints.abstract(like, jax.tree.map(lambda _: device, like))


def save(manager, *steps, scores=None):
    for step in steps:
        score = None if scores is None else scores[step]
        manager.save(step, numbered(step), {"config": {"a": None}, "data": {"next": step}}, score)
        manager.wait()


def test_what_was_saved_is_restored(opened):
    manager = opened()
    assert manager.latest() is None
    assert manager.steps() == []
    save(manager, 1, 2)
    again = opened()
    assert again.latest() == 2
    for step in (1, 2):
        assert_same_state(again.restore(step, places(numbered(0))), numbered(step))
        assert again.progress(step) == {"config": {"a": None}, "data": {"next": step}}


def test_the_state_may_change_while_it_is_saved(opened):
    manager, before = opened(), numbered(1, size=1_000_000)
    expected = jax.tree.map(np.array, before)
    manager.save(1, before, {})
    jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)(before)
    manager.wait()
    assert_same_state(manager.restore(1, places(expected)), expected)


def test_keeps_the_last(opened, tmp_path):
    manager = opened(keep_last=2)
    save(manager, 1, 2, 3, 4)
    assert manager.steps() == [3, 4]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()) == ["3", "4"]


def test_keeps_the_best_beside_the_last(opened):
    scores = {1: 20.0, 2: 25.0, 3: None, 4: 24.0, 5: 21.0, 6: None}
    manager = opened(keep_last=1, keep_best=2)
    save(manager, *scores, scores=scores)
    assert manager.steps() == [2, 4, 6]
    # They are known when the run goes on, too.
    again = opened(keep_last=1, keep_best=2)
    save(again, 7, scores={7: 24.5})
    save(again, 8, scores={8: 10.0})
    assert again.steps() == [2, 7, 8]


def test_those_without_a_score_are_not_best(opened):
    manager = opened(keep_last=1, keep_best=1)
    save(manager, 1, 2, 3)
    assert manager.steps() == [3]


def test_what_a_kill_left_is_not_counted_and_is_removed(opened, tmp_path):
    save(opened(), 1, 2)
    folder = tmp_path / "checkpoints"
    half = folder / "3.orbax-checkpoint-tmp"
    (folder / "2").rename(half)
    manager = opened()
    assert manager.latest() == 1
    save(manager, 2)
    assert not half.exists()
    save(manager, 3)
    assert manager.steps() == [1, 2, 3]


@pytest.mark.parametrize("item", ["state", "progress"])
@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_damaged_one_is_named_in_a_sentence(item, damage, opened, tmp_path):
    save(opened(), 1)
    folder = tmp_path / "checkpoints" / "1"
    for path in (folder / item).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else path.stat().st_size // 2])
    manager = opened()
    read = {"state": lambda: manager.restore(1, places(numbered(0))), "progress": lambda: manager.progress(1)}
    with pytest.raises(ValueError, match=rf"^checkpoint {folder}: can't be restored \(") as caught:
        read[item]()
    assert "\n" not in str(caught.value)


def test_other_shapes_are_refused(opened, tmp_path):
    save(opened(), 1)
    with pytest.raises(ValueError, match=f"^checkpoint {tmp_path / 'checkpoints' / '1'}: can't be restored"):
        opened().restore(1, places(numbered(0, size=7)))


def test_errors_of_saving_in_the_background_come_up(opened, tmp_path, monkeypatch):
    manager = opened()
    save(manager, 1)

    def fail(*_):
        raise RuntimeError("no space left\non device")

    monkeypatch.setattr(manager._manager, "wait_until_finished", fail)
    with pytest.raises(OSError, match=r"checkpoints/?: can't be written \(no space left\)$"):
        manager.wait()


network = functools.cache(tiny_network)
NETWORK = {**vars(TINY), "stochastic_depth": 0.2, "interpolation": "both"}


def trained(step, *, ema=True):
    """The state of a run of a tiny network; its parameters, their average, and all else differ from one another."""
    params = nnx.state(network(MSITFConfig(**NETWORK)), nnx.Param)
    kept = state.create(params, optax.adam(1e-3), ema=ema, seed=0)
    average = jax.tree.map(lambda leaf: leaf + np.float32(step), params) if ema else None
    return dataclasses.replace(kept, step=jnp.int32(step), ema=average)


def save_trained(workdir, *steps, ema=True):
    """Saves them as a run does, from any mesh."""
    manager = checkpoints.Checkpoints(workdir, keep_last=9, keep_best=0)
    config = {"model": NETWORK, "data": {"degradation": "bd_duf"}, "ema_decay": 0.5 if ema else None}
    for step in steps:
        manager.save(step, trained(step, ema=ema), {"config": config})
    manager.close()
    return workdir / "checkpoints"


def content(folder):
    """Every file below a folder, with its bytes and times."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture
def command(monkeypatch):
    """`msitf` in this process: it measures no tile margin, and what it silences is undone."""
    monkeypatch.setattr(margin, "measure", lambda model: 40)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with warnings.catch_warnings():
        yield lambda *words: cli.main([str(word) for word in words])


@pytest.mark.parametrize("ema", [True, False])
def test_weights_are_the_average_where_there_is_one(ema, tmp_path):
    folder = save_trained(tmp_path, 9, 10, ema=ema)
    before = content(tmp_path)
    for path, step in ((tmp_path, 10), (folder, 10), (folder / "10", 10), (folder / "9", 9)):
        model, metadata = checkpoints.read_weights(path)
        assert vars(model.config) == NETWORK
        assert metadata == {"degradation": "bd_duf", "training_step": str(step)}
        expected = trained(step, ema=ema)
        assert_same_state(nnx.state(model, nnx.Param), expected.ema if ema else expected.params)
    assert content(tmp_path) == before


def test_a_folder_that_was_renamed_is_a_checkpoint_still(tmp_path):
    (save_trained(tmp_path, 3) / "3").rename(tmp_path / "good")
    assert checkpoints.read_weights(tmp_path / "good")[1]["training_step"] == "3"


def test_what_is_just_being_saved_is_neither_read_nor_touched(tmp_path):
    folder = save_trained(tmp_path, 1)
    half = folder / "2.orbax-checkpoint-tmp"
    shutil.copytree(folder / "1", half)
    before = content(tmp_path)
    assert checkpoints.read_weights(tmp_path)[1]["training_step"] == "1"
    assert content(tmp_path) == before


def test_convert_writes_them_like_the_end_of_a_run(command, tmp_path, monkeypatch):
    folder = save_trained(tmp_path / "run", 5)
    monkeypatch.chdir(tmp_path)
    assert command("convert", "run", "a.safetensors") == 0
    assert_same_state(nnx.state(weights.load("a.safetensors"), nnx.Param), trained(5).ema)
    noted = weights.read_metadata("a.safetensors")
    assert json.loads(noted.pop("config")) == NETWORK
    noted.pop("sha256")
    assert noted == {"degradation": "bd_duf", "training_step": "5", "tile_margin": "40"}

    assert command("convert", folder / "5", "half.safetensors", "--half", "--note=licence=CC0-1.0") == 0
    halves, wholes = (jax.tree.leaves(nnx.state(weights.load(f"{name}.safetensors"))) for name in ("half", "a"))
    for half, whole in zip(halves, wholes, strict=True):
        np.testing.assert_array_equal(half, np.asarray(whole, np.float16).astype(np.float32))
    assert weights.read_metadata("half.safetensors")["licence"] == "CC0-1.0"


def test_convert_writes_a_pth_file_of_what_that_can_hold(command, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    save_trained(tmp_path / "run", 5)
    monkeypatch.chdir(tmp_path)
    assert command("convert", "run", "a.pth") == 0
    expected = weights.to_torch(checkpoints.read_weights("run")[0])
    found = torch.load("a.pth", weights_only=True)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["conv_first.weight"], expected["conv_first.weight"])
    monkeypatch.setitem(NETWORK, "base", "bicubic")
    save_trained(tmp_path / "other", 5)
    assert command("convert", "other", "b.pth") == 2
    assert capsys.readouterr().err.startswith("msitf convert: weights b.pth: a .pth file can't hold MSITFConfig(")
    assert not pathlib.Path("b.pth").exists()


@pytest.mark.parametrize("kind", ["absent", "empty", "run without one", "half of one"])
def test_a_folder_without_a_checkpoint_is_named(kind, command, tmp_path, capsys):
    path = tmp_path / "folder"
    if kind != "absent":
        path.mkdir()
    if kind == "run without one":
        (path / "checkpoints" / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    if kind == "half of one":
        (path / "checkpoints" / "3" / "state").mkdir(parents=True)
    message = f"checkpoint {path}: no such folder, or none in it, expected such as runs/x/checkpoints/5000"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checkpoints.read_weights(path)
    if kind != "absent":
        assert command("convert", path, tmp_path / "out.safetensors") == 2
        assert capsys.readouterr().err == f"msitf convert: {message}\n"
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("item", ["state", "progress"])
@pytest.mark.parametrize("damage", ["empty", "cut", "bit"])
def test_damaged_weights_are_named_in_a_sentence(item, damage, tmp_path):
    folder = save_trained(tmp_path, 1) / "1"
    for path in (folder / item).rglob("*"):
        if path.is_file() and path.stat().st_size and path.name != "commit_success.txt":
            whole = path.read_bytes()
            middle = len(whole) // 2
            changed = whole[:middle] + bytes([whole[middle] ^ 16]) + whole[middle + 1 :]
            path.write_bytes({"empty": b"", "cut": whole[:middle], "bit": changed}[damage])
    with pytest.raises(
        ValueError, match=rf"^checkpoint {folder}: can't be restored \(.*\); it is damaged, or"
    ) as caught:
        checkpoints.read_weights(folder)
    assert "\n" not in str(caught.value)


def test_arrays_that_are_not_those_that_were_saved_are_noticed(tmp_path, monkeypatch):
    folder = save_trained(tmp_path, 1) / "1"
    other = save_trained(tmp_path / "other", 2) / "2"
    shutil.rmtree(folder / "state")
    shutil.copytree(other / "state", folder / "state")
    with pytest.raises(ValueError, match=r"can't be restored \(its arrays are damaged\)"):
        checkpoints.read_weights(folder)


def test_one_that_is_removed_while_it_is_read_is_told(tmp_path, monkeypatch):
    folder = save_trained(tmp_path, 1) / "1"
    original = ocp.JsonCheckpointHandler.restore

    def then_remove(*arguments, **options):
        record = original(*arguments, **options)
        shutil.rmtree(folder)
        return record

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "restore", then_remove)
    with pytest.raises(ValueError, match=f"^checkpoint {folder}: was removed while it was read, take a newer one$"):
        checkpoints.read_weights(tmp_path)


_ON_EIGHT = """
import pathlib, sys
import jax
from msitf_jax import sharding
from tests import test_checkpoints
assert jax.device_count() == 8
original = test_checkpoints.trained
def on_mesh(step, *, ema):
    state = original(step, ema=ema)
    state = jax.device_put(state, sharding.state_shardings(sharding.make_mesh(4), state))
    assert any(len({str(shard.index) for shard in leaf.addressable_shards}) == 4 for leaf in jax.tree.leaves(state.ema))
    return state
test_checkpoints.trained = on_mesh
test_checkpoints.save_trained(pathlib.Path(sys.argv[1]), 5)
"""


def test_weights_of_another_mesh_lie_on_one_device(tmp_path):
    variables = environment(XLA_FLAGS="--xla_force_host_platform_device_count=8", PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, "-c", _ON_EIGHT, tmp_path], cwd=ROOT, env=variables, timeout=120, check=True)
    params = nnx.state(checkpoints.read_weights(tmp_path)[0], nnx.Param)
    assert_same_state(params, trained(5).ema)
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(params))


def test_a_damaged_one_is_one_line_of_the_command_and_it_needs_the_extra(tmp_path):
    """In a process of its own, where libraries print what they like."""
    folder = save_trained(tmp_path, 1) / "1"
    (folder / "state" / "manifest.ocdbt").write_bytes(b"")
    script = "import sys; {} from msitf_jax import cli; sys.exit(cli.main(sys.argv[1:]))"
    told = f"msitf convert: checkpoint {folder}: "
    for first, expected in (
        ("", told + "can't be restored ("),
        ("sys.modules['orbax'] = None;", told + "needs Orbax, which `pip install 'msitf-jax[train]'` brings\n"),
    ):
        command = [sys.executable, "-c", script.format(first), "convert", folder, tmp_path / "out.safetensors"]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(expected), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
