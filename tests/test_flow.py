"""The network along optical flow: what is carried where, and that the parts fit together."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from msitf_jax import MSITF, MSITFConfig
from msitf_jax.model.flow import FlowAlignment, FlowPropagation, estimate_motion
from msitf_jax.model.precision import narrow
from msitf_jax.ops.resize import bicubic4x, bicubic_base, flow_base
from tests.conftest import randomised
from tests.test_optical_flow import from_middle, texture
from tests.tiny_network import TINY, TINY_FLOW, quick_compilation

run = nnx.jit(lambda module, *arrays: module(*arrays))


# Of a gradient's largest value. In float32 no difference was measured, in bfloat16 half of this.
TOLERANCE = {"float32": 1e-6, "bfloat16": 6e-3}


def moving(frames, dy, dx, height=24, width=29):
    """A clip `[1, frames, height, width, 3]` that moves by (dy, dx) pixels a frame."""
    return jnp.stack([texture(height, width, dy * i, dx * i)[0] for i in range(frames)])[None]


def network(scale=0.05, **fields):
    return randomised(lambda: MSITF(MSITFConfig(**(vars(TINY_FLOW) | fields)), rngs=nnx.Rngs(0)), scale)


def test_motion_of_a_clip_from_three_sides():
    motion = jax.jit(estimate_motion)(moving(3, 1.5, -1.0), 0.5)
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))
    # Of a pixel; twice what was measured.
    for flow, sign in ((motion.between, 1), (motion.ahead, 1), (motion.back, -1)):
        np.testing.assert_allclose(np.median(flow[inside], (0, 1, 2, 3)), [1.5 * sign, -1.0 * sign], rtol=0, atol=0.06)


@pytest.mark.parametrize("time", [None, 0.2])
def test_motion_lies_on_the_grids_of_its_frames(time):
    rate = 0.2
    clip = jnp.stack([texture(48, 48, zoom=zoom) for zoom in (1, 1 + rate)], 1)
    motion = jax.jit(estimate_motion)(clip, time)
    place = from_middle(48, 48)[8:-8, 8:-8]
    # What is at p in the first frame is at (1 + rate t) p at time t. One in 800 was measured at most.
    for flow, expected in (
        (motion.ahead, rate),
        (motion.between, rate / (1 + rate * (time or 0.5))),
        (motion.back, -rate / (1 + rate)),
    ):
        found = np.sum(flow[0, 0, 8:-8, 8:-8] * place) / np.sum(place**2)
        np.testing.assert_allclose(found, expected, rtol=0.0025)


def test_the_nearer_neighbor_counts_more():
    clip = jnp.broadcast_to(jnp.array([0.2, 0.6])[None, :, None, None, None], (1, 2, 8, 9, 3))
    np.testing.assert_allclose(estimate_motion(clip, 0.25).middle, 0.3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("time", [0.25, 0.5])
def test_frames_are_moved_to_the_time_between(time):
    clip = moving(2, 1.0, 2.0)
    motion = jax.jit(estimate_motion)(clip, time)
    truth = texture(24, 29, time, 2 * time)[0]
    for moved in (motion.earlier, motion.later, motion.middle):
        error = np.abs(moved[0, 0, 4:-4, 4:-4] - truth[4:-4, 4:-4])
        assert error.mean() < 0.01
    assert np.abs(clip[0, 0, 4:-4, 4:-4] - truth[4:-4, 4:-4]).mean() > 0.02


def test_each_clip_has_a_time_of_its_own():
    model = network()
    clips = jnp.concatenate([moving(3, 1.0, 2.0), moving(3, -0.5, 1.0)])
    upscale = nnx.jit(lambda model, clip, time: model(clip, time=time))
    with quick_compilation():
        together = upscale(model, clips, jnp.array([1 / 3, 2 / 3]))
        for i, time in enumerate((1 / 3, 2 / 3)):
            np.testing.assert_allclose(together[i], upscale(model, clips[i : i + 1], time)[0], rtol=0, atol=2e-6)
        halfway = nnx.jit(lambda model, clip: model(clip))(model, clips)
        np.testing.assert_allclose(upscale(model, clips, jnp.full(2, 0.5)), halfway, rtol=0, atol=2e-6)
    assert np.abs(halfway - together)[:, 1::2].max() > 0.05
    np.testing.assert_allclose(halfway[:, ::2], together[:, ::2], rtol=0, atol=2e-6)


@pytest.mark.parametrize("time", [jnp.zeros(3), jnp.zeros((2, 1))])
def test_times_that_fit_no_clip_are_refused(time):
    with pytest.raises(ValueError, match=r"^`time` has shape \(.*\), expected a scalar or \[2\]$"):
        network()(jnp.zeros((2, 2, 8, 8, 3)), time=time)


def test_the_published_network_takes_no_time():
    model = MSITF(TINY, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r'^`time` must be None with `alignment` "pcd"'):
        model(jnp.zeros((1, 2, 8, 8, 3)), time=0.5)


def test_the_flow_base_follows_what_the_bicubic_one_blurs():
    clip = moving(3, 1.0, 3.0)
    flow, bicubic = jax.jit(flow_base)(clip), jax.jit(bicubic_base)(clip)
    np.testing.assert_array_equal(flow[:, ::2], bicubic[:, ::2])
    truth = bicubic4x(texture(24, 29, 0.5, 1.5)[:, None])[:, 0]
    inner = (slice(None), slice(16, -16), slice(16, -16))
    error = [float(np.abs(base[:, 1] - truth)[inner].mean()) for base in (flow, bicubic)]
    assert error[0] < error[1] / 5


def test_untrained_alignment_is_the_flow_alone():
    align = FlowAlignment(4, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 4))
    flow = jnp.broadcast_to(jnp.array([1.0, -2.0]), (1, 5, 6, 2))
    moved = align(x, *align.offsets(flow, jnp.zeros((1, 5, 6, 4))))
    rows, columns = np.clip(np.arange(5) + 1, 0, 4), np.clip(np.arange(6) - 2, 0, 5)
    np.testing.assert_allclose(moved, np.asarray(x)[:, rows][:, :, columns], rtol=0, atol=1e-6)


def test_groups_are_corrected_apart():
    align = FlowAlignment(4, 2, rngs=nnx.Rngs(0))
    # Offsets (dy, dx) of the first group, then of the second; then a mask of each.
    align.conv_offset.bias[...] = jnp.array([0.0, 1.0, 0.0, 0.0, 0.0, -30.0])
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 4))
    moved = align(x, *align.offsets(jnp.zeros((1, 5, 6, 2)), jnp.zeros((1, 5, 6, 4))))
    correction = 10 * np.tanh(0.1)
    expected = (1 - correction) * np.asarray(x)[:, :, :-1, :2] + correction * np.asarray(x)[:, :, 1:, :2]
    np.testing.assert_allclose(moved[:, :, :-1, :2], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(moved[..., 2:], 0, rtol=0, atol=1e-6)


def test_directions_equal_a_loop_over_each():
    module = randomised(lambda: FlowPropagation(8, 1, 2, rngs=nnx.Rngs(0)), 0.1)
    features = jax.random.normal(jax.random.key(0), (2, 3, 6, 7, 8))
    images = jax.random.uniform(jax.random.key(1), (2, 3, 6, 7, 3))
    ahead, back = jax.random.normal(jax.random.key(2), (2, 2, 2, 6, 7, 2))

    @nnx.jit
    def step(module, x, state, here, there, flow):
        offset, mask = (a[:, 0] for a in module._offsets(here[:, None], there[:, None], flow[:, None]))
        state = nnx.leaky_relu(module.conv(x, module.align(state, offset, mask)), 0.1)
        return module.blocks[0](state)

    @nnx.jit
    def first(module, x):
        return module.blocks[0](nnx.leaky_relu(module.conv(x, jnp.zeros_like(x)), 0.1))

    def states(times, flows):
        found = {times[0]: first(module, features[:, times[0]])}
        for before, now in itertools.pairwise(times):
            flow = flows[:, min(before, now)]
            found[now] = step(module, features[:, now], found[before], images[:, now], images[:, before], flow)
        return found

    forward, backward = states((0, 1, 2), back), states((2, 1, 0), ahead)
    result = run(module, features, images, ahead, back)
    for t in range(3):
        merged = nnx.leaky_relu(module.merge(features[:, t], forward[t], backward[t]), 0.1)
        np.testing.assert_allclose(result[:, t], merged, rtol=0, atol=2e-6)
    again = nnx.jit(lambda module, *arrays: module(*arrays, remat=True))(module, features, images, ahead, back)
    np.testing.assert_allclose(again, result, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"trunk": "swin", "window_heads": 2},
        {"upsampling": "two_steps"},
        {"context": True, "temporal_heads": 2},
    ],
    ids=lambda fields: "+".join(map(str, fields.values())) or "tiny",
)
def test_every_choice_upscales_any_size_and_gets_gradients(fields):
    model = network(**fields)
    clip = jax.random.uniform(jax.random.key(0), (1, 3, 9, 13, 3))
    graph, params = nnx.split(model)

    @jax.jit
    def value_and_gradients(params):
        def loss(params):
            out = nnx.merge(graph, params)(clip)
            return jnp.sum(out**2), out

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, out), gradients = value_and_gradients(params)
    assert out.shape == (1, 5, 36, 52, 3)
    for path, gradient in nnx.to_flat_state(gradients):
        assert np.isfinite(gradient[...]).all(), path
        assert np.abs(gradient[...]).max() > 0, path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_gradients_are_the_same(dtype):
    graph, params = nnx.split(network())
    clip = moving(3, 1.0, 0.5, height=9, width=13)

    def gradients(remat):
        def loss(params):
            model = nnx.merge(graph, narrow(params, jnp.dtype(dtype)))
            return jnp.sum(model.forward(clip, time=1 / 3, remat=remat) ** 2)

        return jax.jit(jax.grad(loss))(params)

    with quick_compilation():
        kept, recomputed = (nnx.to_flat_state(gradients(remat)) for remat in (False, True))
    for (path, gradient), (_, again) in zip(kept, recomputed, strict=True):
        assert gradient[...].dtype == jnp.float32
        scale = np.abs(gradient[...]).max()
        np.testing.assert_allclose(again[...], gradient[...], rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=str(path))
        assert scale > 0, path


def test_every_frame_depends_on_all_inputs():
    model, clip = network(scale=0.15), moving(4, 0.5, 1.0)
    before = run(model, clip)
    for changed in (0, 3):
        other = clip.at[:, changed].add(0.02 * jax.random.normal(jax.random.key(1), clip.shape[2:]))
        difference = np.abs(run(model, other) - before).max((0, 2, 3, 4))
        assert (difference > 1e-5).all()


def test_equal_frames_stay_still():
    still = jnp.broadcast_to(texture(16, 16)[:, None], (1, 3, 16, 16, 3))
    out = flow_base(still)
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1], out.shape), rtol=0, atol=1e-6)


def test_bfloat16_is_close_to_float32():
    model, clip = network(), moving(3, 0.5, 1.0)
    graph, params = nnx.split(model)
    narrowed = jax.jit(lambda params, clip: nnx.merge(graph, params)(clip))(narrow(params, jnp.bfloat16), clip)
    exact = run(model, clip)
    assert narrowed.dtype == jnp.float32
    change = np.abs(exact - flow_base(clip)).mean()
    assert np.abs(narrowed - exact).mean() < 0.05 * change


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("base", "bicubic", r"`base` \(='bicubic'\) must be flow with `alignment` 'flow'"),
        ("alignment", "none", r"`alignment` \(='none'\) must be one of pcd, flow"),
        ("trunk", "mlp", r"`trunk` \(='mlp'\) must be one of swin, conv"),
        ("upsampling", "three", r"`upsampling` \(='three'\) must be one of two_steps, one_step"),
        ("context", 1, r"`context` \(=1\) must be True or False"),
        ("offset_groups", 3, r"`channels` \(=8\) must be divisible by `offset_groups` \(=3\)"),
        ("propagation_blocks", 2000, r"must be at most 1000"),
    ],
)
def test_bad_configurations_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        MSITFConfig(**(vars(TINY_FLOW) | {field: value}))


def test_unused_fields_need_not_fit():
    assert MSITFConfig(**(vars(TINY_FLOW) | {"temporal_heads": 3, "window_heads": 5})).channels == 8
