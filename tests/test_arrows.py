"""Imports run one way, and libraries stay in the rooms that know them: CONTRIBUTING.md says which."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
FILES = [path for package in ("msitf_jax", "input_pipeline") for path in sorted((ROOT / package).rglob("*.py"))]
# What each room of the package may import of the others.
ARROWS = {
    "": {"model", "video"},  # the package's own names
    "atomic": set(),
    "ops": set(),
    "model": {"ops"},
    "weights": {"atomic", "model"},
    "limits": set(),
    "export": {"atomic", "methods", "model", "ops"},
    "methods": {"atomic", "model", "ops", "weights"},
    "sharding": set(),
    "video": {"atomic", "input_pipeline", "limits", "methods", "model", "weights"},
    "evaluation": {"atomic", "input_pipeline", "limits", "methods", "model", "weights"},
    "training": {"atomic", "evaluation", "input_pipeline", "methods", "model", "sharding", "weights"},
    "cli": {
        "atomic",
        "evaluation",
        "export",
        "input_pipeline",
        "limits",
        "methods",
        "model",
        "training",
        "video",
        "weights",
    },
    "input_pipeline": set(),
}
# Files, or what the names of files begin with, that may import a library; whatever is not here may be anywhere.
LIBRARIES = {
    "av": ("msitf_jax/video/", "msitf_jax/cli/info.py", "input_pipeline/videos.py"),
    "array_record": ("input_pipeline/builders/",),
    "clu": ("msitf_jax/training/",),
    "flax": ("msitf_jax/",),
    "grain": ("input_pipeline/loader.py",),
    "jax": ("msitf_jax/",),
    "matplotlib": ("msitf_jax/training/report.py",),
    "ml_collections": ("msitf_jax/training/",),
    "optax": ("msitf_jax/training/",),
    "orbax": ("msitf_jax/training/checkpoints.py",),
    "scenedetect": ("msitf_jax/video/scenes.py",),
    "tensorboardX": ("msitf_jax/training/writers.py",),
    "tensorflow_datasets": ("input_pipeline/builders/", "input_pipeline/prepare.py"),
    "torch": ("msitf_jax/weights/files.py",),
}


def imported(source):
    """The full names of all that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """Where in the two packages a full name lies, None outside: "msitf_jax.video.color" -> "video"."""
    package, _, rest = name.partition(".")
    if package != "msitf_jax":
        return package if package == "input_pipeline" else None
    room = rest.partition(".")[0]
    # What the package itself offers, such as `msitf_jax.MSITF`, is the model's.
    return room if (ROOT / package / room).is_dir() or (ROOT / package / f"{room}.py").is_file() else "model"


def room_of_file(path):
    inside = path.relative_to(ROOT)
    parts = inside.with_suffix("").parts
    return "" if parts == ("msitf_jax", "__init__") else room_of(".".join(parts))


def test_rooms_are_told_apart():
    names = ["msitf_jax.video.color.RGB", "msitf_jax.atomic", "msitf_jax.MSITF", "input_pipeline.png", "numpy.typing"]
    assert [room_of(name) for name in names] == ["video", "atomic", "model", "input_pipeline", None]
    source = "import av.filter\ndef f():\n    from msitf_jax import cli"
    assert list(imported(source)) == ["av.filter", "msitf_jax.cli"]


def test_arrows_run_one_way():
    assert {room_of_file(path) for path in FILES} == set(ARROWS)
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in FILES
        if path.name != "__main__.py"  # a script
        for name in imported(path.read_text())
        if room_of(name) not in (None, room_of_file(path), *ARROWS[room_of_file(path)])
    ]
    assert wrong == []


def test_libraries_stay_in_their_rooms():
    found = [(path.relative_to(ROOT).as_posix(), name) for path in FILES for name in imported(path.read_text())]
    wrong = [
        f"{path} imports {name}"
        for path, name in found
        if not path.startswith(LIBRARIES.get(name.partition(".")[0], ("",)))
    ]
    assert wrong == []
    # None of them is listed for nothing.
    assert set(LIBRARIES) <= {name.partition(".")[0] for _, name in found}


def test_only_one_file_names_mesh_axes():
    users = [path for path in FILES if any(name.endswith(".PartitionSpec") for name in imported(path.read_text()))]
    assert users == [ROOT / "msitf_jax" / "sharding.py"]
