"""Which checkpoints are kept, and what becomes of those that are not whole."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msitf_jax import sharding
from msitf_jax.training import checkpoints, state
from tests.training import assert_same_state

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
