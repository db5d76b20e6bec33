"""What eight devices exchange in a training step of the published network, read off the compiled program: prints JSON.

Nothing is computed: the devices are virtual, and the program says what is sent.
"""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
from flax import nnx

from msitf_jax import MSITF, sharding
from msitf_jax.training import schedule, state, step

MESHES = ((8, 1), (4, 2), (2, 4))
CROP = 32
_SIZES = {"pred": 1, "u8": 1, "s8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)(?:-start)?\("
)


def collectives(text):
    """Compiled HLO -> `{kind: {"arrays", "bytes"}}`: what a step exchanges, by the size of the results."""
    found = {}
    for shapes, kind in _COLLECTIVE.findall(text):
        entry = found.setdefault(kind, {"arrays": 0, "bytes": 0})
        for dtype, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            entry["arrays"] += 1
            entry["bytes"] += _SIZES[dtype] * math.prod(int(n) for n in dimensions.split(",") if n)
    return found


def main():
    """Compiles the step for each mesh, with a clip for each device, and counts."""
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    graph, params = nnx.split(nnx.eval_shape(lambda: MSITF(rngs=nnx.Rngs(0))), nnx.Param)
    optimizer = schedule.make_optimizer(lambda _: 2e-4)
    run = jax.eval_shape(functools.partial(state.create, optimizer=optimizer, ema=False, seed=0), params)
    shapes = {"low": (8, 4, CROP, CROP, 3), "high": (8, 7, 4 * CROP, 4 * CROP, 3)}
    batch = {name: jax.ShapeDtypeStruct(shape, jnp.uint8) for name, shape in shapes.items()}
    results = {}
    for data, model in MESHES:
        mesh = sharding.make_mesh(model)
        train_step = step.make_train_step(graph, optimizer, mesh, sharding.state_shardings(mesh, run))
        # What is sent does not depend on how well LLVM makes loops.
        compiled = train_step.lower(run, batch).compile(compiler_options={"xla_backend_optimization_level": 0})
        results[f"{data}x{model}"] = collectives(compiled.as_text())
    print(json.dumps(results))


if __name__ == "__main__":
    main()
