"""Counts the floating-point operations of a JAX function, loops included (XLA's own count sees a loop's body once)."""

import math

import jax
from jax.extend.core import jaxprs_in_params


def count(function, *arguments):
    """FLOP of one call, two for each multiply-add of convolutions and matrix products; the rest is left out."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // out_features
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        elif name == "cond":  # ways to the same result on different platforms
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            repeats = params["length"] if name == "scan" else 1
            total += repeats * sum(_count(inner) for inner in jaxprs_in_params(params))
    return total
