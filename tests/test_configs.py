"""The configuration files: complete, alike, and settable on the command line."""

import importlib.util
import pathlib

import pytest
from absl import flags
from ml_collections import config_dict, config_flags

from benchmarks import choices
from configs import msitf
from input_pipeline.loader import DataConfig
from msitf_jax import MSITFConfig
from msitf_jax.training import configuration
from tests.training import ROOT

# By ml_collections, which reads the files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
FILES = [*sorted((ROOT / "configs").glob("*.py")), ROOT / "tests" / "tiny_config.py"]
PLACEHOLDERS = {
    "init_from": ("weights.pth", str),
    "data.dir": ("clips", str),
    "data.lr_dir": ("small", str),
    "optimizer.max_grad_norm": ("1000", float),
    "ema_decay": ("0.999", float),
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def flatten(config):
    return configuration.flat(config.to_dict())


def parse(path, *arguments):
    """As train.py reads them."""
    values = flags.FlagValues()
    command = ["train.py", f"--config={path}", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    values(command)
    return values.config


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_the_same_fields_and_fits_together(path):
    config = load(path)
    published = msitf.get_config()
    assert flatten(config).keys() == flatten(published).keys()
    for name, value in flatten(config).items():
        assert type(value) in (type(flatten(published)[name]), PLACEHOLDERS.get(name, ("", None))[1]), name
    configuration.check(config)
    MSITFConfig(**config.model)
    DataConfig(**config.data)
    assert pathlib.Path(path).read_text().startswith('"""')


def test_the_published_configuration_is_the_default_one():
    config = msitf.get_config()
    assert MSITFConfig(**config.model) == MSITFConfig()
    assert DataConfig(**config.data) == DataConfig()
    assert config.num_train_steps == config.optimizer.period * config.optimizer.periods


def test_every_field_can_be_set_on_the_command_line():
    path = ROOT / "configs" / "msitf.py"
    before = flatten(msitf.get_config())
    assert {name for name, value in before.items() if value is None} == PLACEHOLDERS.keys()
    wanted = {}
    for name, value in before.items():
        if isinstance(value, bool):
            wanted[name] = not value
        elif isinstance(value, (int, float)):
            wanted[name] = value + 1
        elif name in PLACEHOLDERS:
            text, kind = PLACEHOLDERS[name]
            wanted[name] = kind(text)
        else:
            wanted[name] = f"another {value}"
    config = parse(path, *(f"--config.{name}={value}" for name, value in wanted.items()))
    assert flatten(config) == wanted


def test_placeholders_stay_unset_where_nothing_is_given():
    config = parse(ROOT / "configs" / "msitf.py", "--config.batch_size=8")
    assert config.batch_size == 8
    assert config.ema_decay is None
    assert isinstance(config, config_dict.ConfigDict)


@pytest.mark.parametrize("row", choices.ROWS)
def test_what_the_benchmark_compares_are_networks(row):
    config = MSITFConfig(**choices.ROWS[row].model)
    assert config.channels <= 48
    assert sum(phase.share for phase in choices.ROWS[row].phases) == pytest.approx(1)


def test_one_row_of_the_benchmark_is_what_is_shipped():
    assert MSITFConfig(**choices.ROWS["shipped"].model) == MSITFConfig(**load(ROOT / "configs/msitf_small.py").model)


def test_a_run_of_a_version_without_some_fields_goes_on():
    now = msitf.get_config().to_dict()
    before = {**now, "model": {**now["model"]}, "optimizer": {**now["optimizer"]}}
    del before["optimizer"]["name"], before["model"]["alignment"]
    assert configuration.changes(now, before, workdir="run", step=5) == []
    now["model"]["alignment"] = "flow"
    with pytest.raises(ValueError, match=r"^`model\.alignment` \(='flow'\): the run in run was begun with 'pcd'"):
        configuration.changes(now, before, workdir="run", step=5)
