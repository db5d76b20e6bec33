"""Trains the network: `python train.py --config=configs/msitf.py --workdir=DIR`; run again, it goes on."""

import sys

import absl.logging
from absl import app, flags
from ml_collections import config_flags

from msitf_jax.training.huge_pages import restart_with_huge_pages

_CONFIG = config_flags.DEFINE_config_file("config", None, "Python file with get_config(); --config.a.b= sets a field.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, logs and the result.", required=True)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Several processes, one command each; Slurm and Open MPI are recognised by themselves."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Elsewhere: HOST:PORT of process 0.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Elsewhere: how many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Elsewhere: which of them this is, from 0.")
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0, or 2 with one sentence on standard error."""
    # These take seconds: what is wrong on the command line is told before.
    from jax.errors import JaxRuntimeError

    from msitf_jax.cli import out_of_memory
    from msitf_jax.training import checkpoints, loop

    checkpoints.silence_storage()
    try:
        if len(arguments) > 1:
            raise ValueError(f"unexpected argument {arguments[1]!r}: options are written --name=value")
        if _DISTRIBUTED.value or _COORDINATOR.value:
            loop.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        loop.train_and_evaluate(_CONFIG.value, _WORKDIR.value)
    except (ValueError, OSError, loop.NotFinite) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except (MemoryError, JaxRuntimeError) as error:
        print(f"train.py: {out_of_memory(error)}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments):
    """Reads the command line and the configuration file, which is a program and may raise anything."""
    absl.logging.set_verbosity(absl.logging.FATAL)  # the libraries tell everything they do
    file = next((word for word in arguments if word.startswith("--config=")), "--config")
    try:
        rest = flags.FLAGS(arguments)
        _CONFIG.value.keys()  # a missing file is noticed at the first look
        return rest
    except (AttributeError, KeyError) as error:
        cause: Exception = error
        while cause.args and isinstance(cause.args[0], Exception):
            cause = cause.args[0]
        reason = f"{file} has no field {' '.join(str(cause.args[0]).split())}"
    except Exception as error:
        # Of several lines the last says what is wrong: the end of a traceback, or of the places that were searched.
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
        if not isinstance(error, flags.Error) or f"flag {file}:" in str(error):
            reason = f"{file}: {reason}"
        elif "--config=None" in reason and file != "--config":
            reason = f"{file}: its get_config() returned None, expected a ConfigDict"
    print(f"train.py: {reason}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    restart_with_huge_pages()
    app.run(main, flags_parser=_parse)
