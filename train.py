"""Trains the network: `python train.py --config=configs/msitf.py --workdir=DIR`; run again, it goes on."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from msitf_jax.training import loop

_CONFIG = config_flags.DEFINE_config_file("config", None, "Python file with get_config(); --config.a.b= sets a field.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and the result.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes, one command each; Slurm and Open MPI are recognised by themselves."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Elsewhere: HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Elsewhere: how many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Elsewhere: which of them this is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def main(arguments):
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected argument {arguments[1]!r}: options are written --name=value")
    logging.set_verbosity(logging.WARNING)  # the libraries tell everything they do

    try:
        if _DISTRIBUTED.value or _COORDINATOR.value:
            loop.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        loop.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    except (ValueError, OSError, loop.NotFinite) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(main)
