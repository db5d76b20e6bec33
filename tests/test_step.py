"""The training step: what it reports and keeps, and its options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from msitf_jax import MSITF, MSITFConfig, sharding
from msitf_jax.ops.resize import trilinear_base
from msitf_jax.training import losses, schedule, state, step
from tests.conftest import randomised, relative_error

TINY = MSITFConfig(
    channels=8,
    residual_blocks=1,
    trunk_groups=1,
    offset_groups=2,
    temporal_heads=2,
    window_heads=2,
    stochastic_depth=0.5,
)


@pytest.fixture(autouse=True)
def libraries_promote():
    """Optax promotes counts of steps to floating point."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Affine(nnx.Module):
    """Stands in for the network: the resized clip times a number plus one a channel, and a survival that shifts it."""

    def __init__(self):
        self.scale = nnx.Param(jnp.asarray(0.9))
        self.bias = nnx.Param(jnp.asarray([0.02, -0.01, 0.03]))

    def draw_survival(self, batch, frames, key):
        return jax.random.uniform(key, (batch, frames))

    def forward(self, clip, survival=None, *, time=None, remat=False):
        out = trilinear_base(clip) * self.scale[...] + self.bias[...][None, None, None, None]
        out = out if time is None else out + time[:, None, None, None, None]
        return out if survival is None else out + survival.mean(1)[:, None, None, None, None]


def make_batch(clips=2, size=4, seed=0):
    noise = np.random.default_rng(seed)
    return {
        "low": noise.integers(0, 256, (clips, 4, size, size, 3), np.uint8),
        "high": noise.integers(0, 256, (clips, 7, 4 * size, 4 * size, 3), np.uint8),
    }


def as_floats(batch, dtype="float32"):
    return {name: frames.astype(dtype) / np.dtype(dtype).type(255) for name, frames in batch.items()}


def keeping_gradients():
    """An optimizer that changes nothing and has the gradients as its state's `trace`."""
    return optax.chain(optax.trace(0.0), optax.set_to_zero())


def prepare(model, optimizer, *, ema=False, dtype="float32", seed=0, **options):
    """A function that makes the state before the first step, and the training step on one device."""
    graph, params = nnx.split(model, nnx.Param)
    params = jax.tree.map(lambda a: np.asarray(a).astype(dtype), params)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])

    def create(seed=seed):
        return state.create(jax.tree.map(jnp.asarray, params), optimizer, ema=ema, seed=seed)

    def initial(seed=seed):  # on the mesh, as what a step returns is: another place is another compilation
        return jax.device_put(create(seed), shardings)

    shardings = sharding.state_shardings(mesh, jax.eval_shape(create))
    return initial, step.make_train_step(graph, optimizer, mesh, shardings, **options)


def arrays(params):
    """A copy by name that outlives the step that takes the state's memory."""
    return {".".join(map(str, path)): np.array(leaf) for path, leaf in nnx.to_flat_state(params)}


def losses_of(train_step, run, batch, steps=3):
    found = []
    for _ in range(steps):
        run, metrics = train_step(run, batch)
        found.append(float(metrics["loss"]))
    return found


def test_metrics_by_hand():
    batch = make_batch(clips=3)
    floats = as_floats(batch)
    initial, train_step = prepare(Affine(), keeping_gradients(), stochastic_depth=False)
    run, metrics = train_step(initial(), batch)
    assert sorted(metrics) == ["grad_norm", "loss", "psnr"]
    assert {value.shape for value in metrics.values()} == {()}

    def loss(params):
        output = trilinear_base(jnp.asarray(floats["low"])) * params["scale"] + params["bias"][None, None, None, None]
        return jnp.sum(jnp.sqrt((output - floats["high"]) ** 2 + 1e-6)), output

    params = {name: jnp.asarray(value) for name, value in arrays(initial().params).items()}
    (wanted, output), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    assert float(metrics["loss"]) == pytest.approx(float(wanted), rel=1e-6)
    by_clip = losses.clip_psnr(output, jnp.asarray(floats["high"]))
    assert by_clip.shape == (3,)
    assert float(metrics["psnr"]) == pytest.approx(float(by_clip.mean()), rel=1e-6)
    norm = np.sqrt(gradients["scale"] ** 2 + np.sum(gradients["bias"] ** 2))
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-5)
    found = arrays(optax.tree.get(run.opt_state, "trace"))
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-5)


def test_each_clip_is_drawn_at_its_time_and_the_loss_can_be_another():
    batch = make_batch(clips=3) | {"time": np.array([0.1, 0.2, 0.3], np.float32)}
    options = {"stochastic_depth": False, "loss": lambda output, truth: jnp.sum((output - truth) ** 2)}
    initial, train_step = prepare(Affine(), keeping_gradients(), **options)
    _, metrics = train_step(initial(), batch)
    params = {name: jnp.asarray(value) for name, value in arrays(initial().params).items()}
    output = np.asarray(trilinear_base(jnp.asarray(batch["low"] / np.float32(255)))) * np.asarray(params["scale"])
    output += np.asarray(params["bias"]) + batch["time"].reshape(-1, 1, 1, 1, 1)
    assert float(metrics["loss"]) == pytest.approx(np.sum((output - batch["high"] / 255) ** 2), rel=1e-5)


def test_the_norm_is_that_before_clipping():
    norms, moments = [], []
    for limit in (None, 1.0):
        optimizer = schedule.make_optimizer(lambda step: 1e-3, max_grad_norm=limit)
        initial, train_step = prepare(Affine(), optimizer, stochastic_depth=False)
        run, metrics = train_step(initial(), make_batch())
        norms.append(float(metrics["grad_norm"]))
        moments.append(float(optax.tree.norm(optax.tree.get(run.opt_state, "mu"))))
    assert norms[0] == norms[1] > 10
    assert moments == pytest.approx([0.1 * norms[0], 0.1], rel=1e-5)


def test_the_average_by_its_formula():
    initial, train_step = prepare(Affine(), optax.sgd(1e-4), ema=True, ema_decay=0.75, stochastic_depth=False)
    run = initial()
    average = arrays(run.params)
    for seed in range(3):
        run, _ = train_step(run, make_batch(seed=seed))
        params = arrays(run.params)
        average = {name: 0.75 * average[name] + 0.25 * params[name] for name in average}
        for name, value in arrays(run.ema).items():
            np.testing.assert_allclose(value, average[name], rtol=1e-6)
            assert np.abs(value - params[name]).max() > 1e-4
    assert run.scored is run.ema
    assert int(run.step) == 3


def test_without_an_average_the_parameters_are_scored():
    initial, train_step = prepare(Affine(), optax.sgd(1e-4), stochastic_depth=False)
    run, _ = train_step(initial(), make_batch())
    assert run.ema is None
    assert run.scored is run.params


def test_the_state_before_is_given_up():
    initial, train_step = prepare(Affine(), optax.adam(1e-3), ema=True, ema_decay=0.5)
    before = initial()
    assert all(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(before))
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(before)]
    assert len(set(pointers)) == len(pointers)  # no two share memory, which could be given up only once
    after, _ = train_step(before, make_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))


def test_8_bit_frames_and_floats_agree():
    batch = make_batch()
    initial, train_step = prepare(Affine(), keeping_gradients(), stochastic_depth=False)
    (a, first), (b, second) = (train_step(initial(), frames) for frames in (batch, as_floats(batch)))
    for name, value in first.items():
        assert float(value) == pytest.approx(float(second[name]), rel=1e-6), name
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a.opt_state, b.opt_state)


@pytest.fixture(scope="module")
def tiny_step():
    """As `prepare` for the whole network in small and frames of 16x16, compiled once for each choice of options.

    Without LLVM's optimizations, which take as long again as the rest of the compiler and change no shape.
    """

    @functools.cache
    def compiled(dtype, *, remat=False):
        model = randomised(lambda: MSITF(TINY, rngs=nnx.Rngs(0)), 0.1)
        initial, train_step = prepare(model, keeping_gradients(), compute_dtype=dtype, remat=remat)
        lowered = train_step.lower(initial(), make_batch(size=16))
        return initial, lowered.compile(compiler_options={"xla_backend_optimization_level": 0})

    with jax.numpy_dtype_promotion("standard"):
        yield compiled


def test_stochastic_depth_is_drawn_anew_every_step_from_the_key():
    batch = make_batch()
    initial, train_step = prepare(Affine(), optax.set_to_zero())
    first = losses_of(train_step, initial(), batch)
    assert len(set(first)) == 3  # the parameters stay as they are
    assert losses_of(train_step, initial(), batch) == first
    assert losses_of(train_step, initial(seed=1), batch) != first
    # A run that goes on draws what it would have drawn.
    run, _ = train_step(initial(), batch)
    assert losses_of(train_step, run, batch, 2) == first[1:]


def test_stochastic_depth_can_be_off():
    initial, train_step = prepare(Affine(), optax.set_to_zero())
    assert len(set(losses_of(train_step, initial(), make_batch()))) == 3
    initial, train_step = prepare(Affine(), optax.set_to_zero(), stochastic_depth=False)
    assert len(set(losses_of(train_step, initial(), make_batch()))) == 1


@pytest.mark.slow
def test_recomputing_gives_the_same_gradients_in_less_memory(tiny_step):
    gradients, memory = [], []
    for remat in (False, True):
        initial, train_step = tiny_step("float32", remat=remat)
        memory.append(train_step.memory_analysis().temp_size_in_bytes)
        run, _ = train_step(initial(), make_batch(size=16))
        gradients.append(arrays(optax.tree.get(run.opt_state, "trace")))
    for name, gradient in gradients[0].items():
        assert relative_error(gradients[1][name], gradient) < 1.3e-4, name  # twice what was measured
    # 24 of 55 MB were.
    assert memory[1] < 0.6 * memory[0]


def equations(jaxpr):
    """All equations of a jaxpr and of those within."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def test_bfloat16_where_it_does_no_harm():
    model = randomised(lambda: MSITF(TINY, rngs=nnx.Rngs(0)), 0.1)
    batch = make_batch(size=8)
    initial, train_step = prepare(model, keeping_gradients(), compute_dtype="bfloat16", ema=True, ema_decay=0.9)
    run = jax.eval_shape(train_step, initial(), batch)[0]
    floating = {leaf.dtype for leaf in jax.tree.leaves(run) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {jnp.dtype("float32")}  # parameters, average and, as the optimizer's state, gradients

    seen = {}
    for equation in equations(jax.make_jaxpr(train_step)(initial(), batch).jaxpr):
        for operand in equation.invars:
            seen.setdefault((equation.primitive.name, str(operand.aval.dtype)), []).append(operand.aval.shape)
    # Sampling positions, both softmaxes, and the lengths of queries and keys.
    for name in ("floor", "exp", "sqrt"):
        assert (name, "float32") in seen
        assert (name, "bfloat16") not in seen or name == "exp", name
    # What is left of them is in GELU's derivative, as wide as the MLP.
    assert {shape[-1] for shape in seen["exp", "bfloat16"]} == {TINY.mlp_ratio * TINY.channels}
    offsets, masks = 2 * TINY.offset_groups * 9, TINY.offset_groups * 9
    assert {shape[-1] for shape in seen["tanh", "float32"]} == {offsets}
    assert {shape[-1] for shape in seen["tanh", "bfloat16"]} == {TINY.channels}  # the recurrence's gates
    assert masks in {shape[-1] for shape in seen["logistic", "float32"]}
    assert {shape[-1] for shape in seen["logistic", "bfloat16"]} == {TINY.channels}
    assert ("conv_general_dilated", "bfloat16") in seen
    assert ("conv_general_dilated", "float32") not in seen


@pytest.fixture
def in_both_types(tiny_step):
    """(loss, gradients by name) of the same step in float32 and in bfloat16."""

    def one(dtype):
        initial, train_step = tiny_step(dtype)
        run, metrics = train_step(initial(), make_batch(size=16))
        return float(metrics["loss"]), arrays(optax.tree.get(run.opt_state, "trace"))

    return one("float32"), one("bfloat16")


def all_in_one(gradients):
    return np.concatenate([gradient.ravel() for gradient in gradients])


@pytest.mark.slow
def test_bfloat16_comes_close_to_float32(in_both_types):
    (loss, gradients), (narrow_loss, narrow_gradients) = in_both_types
    assert narrow_loss == pytest.approx(loss, rel=4e-4)  # measured: 1.9e-4
    assert {gradient.dtype for gradient in narrow_gradients.values()} == {np.dtype("float32")}
    kernels = [name for name, gradient in gradients.items() if gradient.ndim > 1]
    found, wanted = (all_in_one(some[name] for name in kernels) for some in (narrow_gradients, gradients))
    assert relative_error(found, wanted) < 6e-3  # measured: 2.9e-3


@pytest.mark.slow
def test_bfloat16_comes_close_to_float32_in_biases_too(in_both_types):
    (_, gradients), (_, narrow_gradients) = in_both_types
    assert relative_error(all_in_one(narrow_gradients.values()), all_in_one(gradients.values())) < 6e-3
