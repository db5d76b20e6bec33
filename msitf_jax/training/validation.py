"""Scores on clips that training does not see, computed by all devices and hosts together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from input_pipeline.degradation import SCALE
from msitf_jax import methods, sharding
from msitf_jax.evaluation.benchmark import score_outputs
from msitf_jax.model.config import Base
from msitf_jax.training.step import EvalStep

NAMES = ("psnr_y", "ssim_y", "psnr_y_input", "psnr_y_synthesized")
SHOWN = (2, 3)  # frames of the first clip: an input's, and the next, which is synthesized


class Validation:
    """The validation clips, dealt out to the hosts, and what the base scores on them."""

    def __init__(self, clips: Sequence[Mapping[str, Any]], mesh: Mesh, base: Base) -> None:
        """
        Args:
          clips: see `input_pipeline.loader.validation_clips`; may be empty.
          mesh: see `msitf_jax.sharding`.
          base: name of what the network adds to, see `MSITFConfig`.
        """
        self._clips, self._mesh = clips, mesh
        self._base, self._enlarge = base, methods.method(base)
        self._base_scores: dict[str, float] | None = None

    def __len__(self) -> int:
        return len(self._clips)

    def __call__(
        self, eval_step: EvalStep, params: nnx.State
    ) -> tuple[dict[str, float], list[dict[str, npt.NDArray[np.uint8]]]]:
        """Scores parameters.

        Args:
          eval_step: of `msitf_jax.training.step.make_eval_step`.
          params: what it takes.

        Returns:
          (scores, pictures): means over all clips by name, "psnr_y" and so on, and the same of the base alone as
          "psnr_y_base" and "ssim_y_base"; and of the first clip, on the first host, rows of
          `{title: [H, W, 3] uint8 RGB}`, elsewhere none. Both are empty where there are no clips.
        """
        if not len(self._clips):
            return {}, []
        scores, pictures = [], []
        # Every host takes part in every round; where the clips do not suffice for the last, some are done twice.
        share = self._mesh.size // jax.process_count()
        for first in range(0, len(self._clips), self._mesh.size):
            mine = range(first + jax.process_index() * share, first + (jax.process_index() + 1) * share)
            clips = [self._clips[number % len(self._clips)] for number in mine]
            outputs = eval_step(params, sharding.global_batch(self._mesh, np.stack([clip["low"] for clip in clips])))
            for number, clip, output in zip(mine, clips, sharding.local_part(outputs), strict=True):
                if number >= len(self._clips):
                    continue
                scored = score_outputs(output, clip["high"])
                scores.append([scored[name] for name in NAMES])
                if number == 0:
                    pictures = _pictures(clip, {self._base: self._enlarge(clip["low"]), "output": output})
        means = dict(zip(NAMES, _mean_over_hosts(scores, len(NAMES)), strict=True))
        return means | self._scores_of_base(), pictures

    def _scores_of_base(self):
        """The base's scores, computed once."""
        if self._base_scores is None:
            mine = range(jax.process_index(), len(self._clips), jax.process_count())
            scores = []
            for clip in map(self._clips.__getitem__, mine):
                scored = score_outputs(self._enlarge(clip["low"]), clip["high"])
                scores.append([scored["psnr_y"], scored["ssim_y"]])
            names = ("psnr_y_base", "ssim_y_base")
            self._base_scores = dict(zip(names, _mean_over_hosts(scores, len(names)), strict=True))
        return self._base_scores


def _mean_over_hosts(scores, columns):
    """Rows of scores, this host's -> the exact means of the columns over all hosts' rows."""
    rows = np.asarray(scores, np.float64).reshape(-1, columns)
    if jax.process_count() == 1:
        gathered = [rows]
    else:
        # Hosts may have different numbers of rows, and JAX moves float64 as float32: send bytes.
        counts = multihost_utils.process_allgather(np.array(len(rows), np.int32))
        padded = np.zeros((int(counts.max()), columns))
        padded[: len(rows)] = rows
        words = multihost_utils.process_allgather(padded.view(np.uint32))
        gathered = [part.view(np.float64)[:count] for part, count in zip(words, counts, strict=True)]
    return [math.fsum(column) / len(column) for column in np.concatenate(gathered).T]


def _pictures(clip, outputs):
    given = clip["low"][SHOWN[0] // 2].repeat(SCALE, 0).repeat(SCALE, 1)
    nothing = np.full_like(given, 128)
    return [
        {
            f"input, frame {index}" if index == SHOWN[0] else f"frame {index} is not given": shown,
            **{name: frames[index] for name, frames in outputs.items()},
            "truth": clip["high"][index],
        }
        for index, shown in zip(SHOWN, (given, nothing), strict=True)
    ]
