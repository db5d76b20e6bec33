"""Trains a network on eight virtual devices and prints what came of it; `tests/test_sharding.py` runs it.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.eight_devices msitf [float32]

A process of its own, because the number of devices is fixed when JAX starts. In float64: Adam's first steps go by the
sign of each gradient, and where that is near 0, float32 sums in another order come out on the other side of it.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.exchanges import MESHES, collectives
from msitf_jax import MSITF, MSITFConfig, sharding
from msitf_jax.evaluation.benchmark import score_outputs
from msitf_jax.model.layers import Conv, leaky_relu
from msitf_jax.ops.resize import trilinear_base
from msitf_jax.training import schedule, state, step, validation
from tests.conftest import randomised

CONFIG = MSITFConfig(
    channels=8,
    residual_blocks=1,
    trunk_groups=1,
    offset_groups=2,
    temporal_heads=2,
    window_heads=2,
    stochastic_depth=0.5,
)


class Convolutions(nnx.Module):
    """Stands in for the network where its minutes of compiling are too long: two convolutions of the resized clip.

    Each clip's time counts, as for networks along the flow.
    """

    def __init__(self, *, rngs):
        self.conv1 = Conv(3, 16, rngs=rngs)
        self.conv2 = Conv(16, 3, rngs=rngs)

    def draw_survival(self, batch, frames, key):
        return jax.random.bernoulli(key, 0.5, (batch, 2 * frames - 1)).astype(self.conv1.kernel.dtype)

    def forward(self, clip, survival=None, *, time=None, remat=False):
        base = trilinear_base(clip)
        x = leaky_relu(self.conv1(base.reshape(-1, *base.shape[2:])))
        if survival is not None:
            x = x * survival.reshape(-1, 1, 1, 1)
        if time is not None:
            base = base + time.reshape(-1, 1, 1, 1, 1)
        return base + self.conv2(x).reshape(base.shape)

    def __call__(self, clip):
        return self.forward(clip)


NETWORKS = {"convolutions": Convolutions, "msitf": lambda rngs: MSITF(CONFIG, rngs=rngs)}
STEPS = 4
SMALLEST_SHARDED = 64  # elements: a small network has no large arrays


def make_batches(clips, size, frames, dtype, *, timed):
    noise = np.random.default_rng(0)
    shapes = {"low": (clips, frames, size, size, 3), "high": (clips, 2 * frames - 1, 4 * size, 4 * size, 3)}
    if timed:
        shapes["time"] = (clips,)
    return [{name: noise.random(shape).astype(dtype) for name, shape in shapes.items()} for _ in range(STEPS)]


def train(network, mesh, batches, dtype):
    """A run of `STEPS` steps; returns (losses, its last state, what is told of it, the model's graph, shardings)."""
    graph, params = nnx.split(randomised(lambda: NETWORKS[network](rngs=nnx.Rngs(0)), 0.1), nnx.Param)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    optimizer = schedule.make_optimizer(lambda step: 1e-3)
    run = state.create(params, optimizer, ema=True, seed=0)
    shardings = sharding.state_shardings(mesh, run)
    run = jax.device_put(run, shardings)
    train_step = step.make_train_step(graph, optimizer, mesh, shardings, ema_decay=0.9)
    batch = sharding.global_batch(mesh, batches[0])
    compiled = train_step.lower(run, batch).compile()
    losses = []
    for batch in batches:
        run, metrics = compiled(run, sharding.global_batch(mesh, batch))
        losses.append(float(metrics["loss"]))
    parts = {}
    for name in ("params", "mu", "nu", "ema"):
        leaves = jax.tree.leaves(
            getattr(run, name) if name in ("params", "ema") else optax.tree.get(run.opt_state, name)
        )
        held = [leaf.addressable_shards[-1].data.size for leaf in leaves]
        parts[name] = {
            "elements": sum(leaf.size for leaf in leaves),
            "cut": sum(leaf.size for leaf, own in zip(leaves, held, strict=True) if own < leaf.size),
            "held": sum(own for leaf, own in zip(leaves, held, strict=True) if own < leaf.size),
        }
    return losses, run, {"parts": parts, "collectives": collectives(compiled.as_text())}, graph, shardings


class Clips(list):
    """Random clips, as many as asked for."""

    def __init__(self, count):
        noise = np.random.default_rng(1)
        for _ in range(count):
            low, high = (noise.integers(0, 256, shape, np.uint8) for shape in ((4, 8, 8, 3), (7, 32, 32, 3)))
            self.append({"key": "", "low": low, "high": high})


def relative(value, reference):
    """The largest error of an array relative to its largest entry, over all arrays."""
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(reference), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs if np.abs(b).max() > 0)


def main(network, dtype="float64"):
    sharding.SMALLEST_SHARDED = SMALLEST_SHARDED
    batches = make_batches(8, 8, 2, dtype, timed=network == "convolutions")
    alone = sharding.make_mesh(devices=jax.devices()[:1])
    losses, reference, _, _, _ = train(network, alone, batches, dtype)
    reference = sharding.gather(alone, reference)
    results = {}
    for shape in MESHES:
        mesh = sharding.make_mesh(shape[1])
        found, run, result, graph, shardings = train(network, mesh, batches, dtype)
        whole = sharding.gather(mesh, run)
        result["losses"] = relative(np.array(found), np.array(losses))
        for name in ("params", "opt_state", "ema"):
            result[name] = relative(getattr(whole, name), getattr(reference, name))
        result["mesh"] = dict(mesh.shape)

        clips = np.stack([clip["low"] for clip in Clips(16)])
        there = sharding.global_batch(mesh, clips)
        result["held_clips"] = sorted({shard.data.shape[0] for shard in there.addressable_shards})
        result["round_trip"] = bool((sharding.local_part(there) == clips).all())
        if shape == MESHES[-1]:
            eval_step = step.make_eval_step(graph, mesh, shardings.params)
            outputs = sharding.local_part(eval_step(run.params, there))
            model = nnx.merge(graph, jax.tree.map(jnp.asarray, whole.params))
            by_hand = nnx.jit(lambda model, clip: model(clip))(model, jnp.asarray(clips.astype(dtype) / 255))
            by_hand = np.clip(np.rint(255 * np.asarray(by_hand)), 0, 255)
            result["eval"] = {"dtype": str(outputs.dtype), "off": int(np.abs(outputs - by_hand).max())}
            result["eval"]["collectives"] = collectives(eval_step.lower(run.params, there).compile().as_text())
            eleven = Clips(11)
            scores, pictures = validation.Validation(eleven, mesh, "trilinear")(eval_step, run.params)
            scored = [score_outputs(output, clip["high"]) for output, clip in zip(outputs, eleven, strict=False)]
            wanted = {name: np.mean([clip[name] for clip in scored]) for name in validation.NAMES}
            result["validation"] = max(abs(scores[name] / wanted[name] - 1) for name in wanted)
            result["pictures"] = len(pictures)
        results["x".join(map(str, shape))] = result
    print(json.dumps({"devices": jax.device_count(), "loss": losses, "meshes": results}))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "standard")  # Optax promotes counts of steps
    main(*sys.argv[1:])
