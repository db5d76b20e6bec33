"""Everything public says what it takes and gives, for readers, editors and type checkers, and what it is for."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(
    path.relative_to(ROOT)
    for pattern in ("msitf_jax/**/*.py", "input_pipeline/**/*.py", "configs/*.py", "*.py")
    for path in ROOT.glob(pattern)
)


def public_functions(body):
    """Functions and methods without a leading underscore, and Python's own methods; those inside functions are not."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body)
        elif isinstance(node, ast.FunctionDef) and (node.name.startswith("__") or not node.name.startswith("_")):
            yield node


def without_hints(function):
    """The names of its arguments that have no hint, and "return" if that has none."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    missing = [each.arg for each in named if each and each.annotation is None and each.arg not in ("self", "cls")]
    return missing + ([] if function.returns else ["return"])


def test_a_function_without_hints_is_found():
    function = next(public_functions(ast.parse("class A:\n  def f(self, a, *b, c: int, **d): ...").body))
    assert without_hints(function) == ["a", "b", "d", "return"]


def test_public_functions_have_hints_and_docstrings():
    found = [(path, each) for path in FILES for each in public_functions(ast.parse((ROOT / path).read_text()).body)]
    assert len(found) > 200
    assert [f"{path}: {each.name}, {name}" for path, each in found for name in without_hints(each)] == []
    # What Python's own methods are for, their names say, or their class.
    named = [(path, each) for path, each in found if not each.name.startswith("__")]
    assert [f"{path}: {each.name}" for path, each in named if not ast.get_docstring(each)] == []


def test_packages_tell_type_checkers_that_they_have_hints():
    for package in ("msitf_jax", "input_pipeline"):
        assert (ROOT / package / "py.typed").is_file()
