"""What a training configuration may hold, and what of it may change when a run goes on."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from msitf_jax.atomic import FilePath
from msitf_jax.model.config import MSITFConfig
from msitf_jax.model.precision import COMPUTE_DTYPES
from msitf_jax.training.initialization import INITIALIZATIONS
from msitf_jax.training.losses import LOSSES
from msitf_jax.training.schedule import OPTIMIZERS, SCHEDULES

_T = TypeVar("_T")
_OPTIONAL = ("init_from", "data.dir", "data.lr_dir", "optimizer.max_grad_norm", "ema_decay")
_MOST = 2**63 - 1  # of what an index may be
# Whether these are set decides what a checkpoint holds.
_SHAPING = ("ema_decay", "optimizer.max_grad_norm")
# What a field was before there was one.
_FORMER = {f"model.{name}": value for name, value in vars(MSITFConfig()).items()} | {"optimizer.name": "adam"}


def check(config: ConfigDict) -> None:
    """Raises ValueError for a field of a training configuration, see `configs/msitf.py`, that is out of range."""
    for name, value in flat(config.to_dict()).items():
        if value is None and name not in _OPTIONAL:
            raise ValueError(f"`{name}` (=None) must be set")
        if isinstance(value, int) and abs(value) > _MOST:
            raise ValueError(f"`{name}` (={value!r}) must be at most {_MOST}")
    for name in ("num_train_steps", "batch_size", "log_every", "eval_every", "checkpoint_every", "keep_last"):
        if config[name] < 1:
            raise ValueError(f"`{name}` (={config[name]!r}) must be at least 1")
    for name in ("seed", "eval_clips", "keep_best"):
        if config[name] < 0:
            raise ValueError(f"`{name}` (={config[name]!r}) must be 0 or more")
    if config.compute_dtype not in COMPUTE_DTYPES:
        raise ValueError(f"`compute_dtype` (={config.compute_dtype!r}) must be one of {', '.join(COMPUTE_DTYPES)}")
    if config.initialization not in INITIALIZATIONS:
        raise ValueError(f"`initialization` (={config.initialization!r}) must be one of {', '.join(INITIALIZATIONS)}")
    if config.loss not in LOSSES:
        raise ValueError(f"`loss` (={config.loss!r}) must be one of {', '.join(LOSSES)}")
    if config.ema_decay is not None and not 0 < config.ema_decay < 1:
        raise ValueError(f"`ema_decay` (={config.ema_decay!r}) must be between 0 and 1")
    optimizer = config.optimizer
    for name in ("b1", "b2"):
        if not 0 <= optimizer[name] < 1:
            raise ValueError(f"`optimizer.{name}` (={optimizer[name]!r}) must be at least 0 and below 1")
    if optimizer.name not in OPTIMIZERS:
        raise ValueError(f"`optimizer.name` (={optimizer.name!r}) must be one of {', '.join(OPTIMIZERS)}")
    if optimizer.schedule not in SCHEDULES:
        raise ValueError(f"`optimizer.schedule` (={optimizer.schedule!r}) must be one of {', '.join(SCHEDULES)}")
    for name in ("warmup", "cooldown"):
        if not 0 <= optimizer[name] < math.inf:
            raise ValueError(f"`optimizer.{name}` (={optimizer[name]!r}) must be 0 or more")
    for name in ("learning_rate", "period", "periods"):
        if not 0 < optimizer[name] < math.inf:
            raise ValueError(f"`optimizer.{name}` (={optimizer[name]!r}) must be above 0")
    if not 0 <= optimizer.min_learning_rate <= optimizer.learning_rate:
        raise ValueError(
            f"`optimizer.min_learning_rate` (={optimizer.min_learning_rate!r}) must be from 0 to "
            f"`optimizer.learning_rate` (={optimizer.learning_rate!r})"
        )
    if optimizer.max_grad_norm is not None and not optimizer.max_grad_norm > 0:
        raise ValueError(f"`optimizer.max_grad_norm` (={optimizer.max_grad_norm!r}) must be above 0")


def filled(kind: type[_T], name: str, fields: Mapping[str, Any]) -> _T:
    """Part `name` of a configuration as a dataclass of `kind`, which checks the values; raises ValueError."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # typing knows no dataclass
    for field in fields:
        if field not in known:
            raise ValueError(f"`{name}.{field}`: no such field, expected one of {', '.join(sorted(known))}")
    return kind(**fields)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    out: dict[str, Any] = {}
    for name, value in config.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out


def changes(config: Mapping[str, Any], before: Mapping[str, Any], *, workdir: FilePath, step: int) -> list[str]:
    """What has changed in a configuration since a run's checkpoint was saved.

    Args:
      config, before: nested dicts, now and then.
      workdir, step: of the checkpoint, for the messages.

    Returns:
      A sentence a change.

    Raises:
      ValueError: a field that the checkpoint's network or its optimizer's state does not fit.
    """
    before, notes = _FORMER | flat(before), []
    for name, new in flat(config).items():
        old = before.get(name)
        if old == new:
            continue
        fixed = name.startswith("model.") or name == "optimizer.name"
        if fixed or (name in _SHAPING and None in (old, new)):
            raise ValueError(
                f"`{name}` (={new!r}): the run in {workdir} was begun with {old!r}, "
                "expected the same or another workdir"
            )
        notes.append(f"`{name}` is {new!r} from step {step} on, before {old!r}")
    return notes
