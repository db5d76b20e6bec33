"""What is wrong with the pages that can be told without running anything."""

import shlex

from msitf_jax import cli
from tests.docs_check import markdown
from tests.docs_check.commands import PROGRAMS, check_command, check_option
from tests.docs_check.markdown import commands

NAMES = {f"msitf {name}" for name in cli.COMMANDS}  # within a sentence a command may be named without its arguments


def faults(pages):
    """Yields a sentence for everything that is wrong without running anything."""
    for path, page in pages.items():
        place = path.relative_to(markdown.ROOT)
        for line, target in page.links:
            file, _, anchor = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            if not linked.exists():
                yield f"{place}:{line}: {target}: no such file"
            elif anchor and anchor not in pages.get(linked, page).anchors:
                yield f"{place}:{line}: {target}: no such heading"
        for line, code in page.quoted:
            if code in NAMES:
                continue
            if code.split()[0] in PROGRAMS and " " in code:
                yield from _fault(f"{place}:{line}", check_command, shlex.split(code))
            elif code.startswith("--"):
                yield from _fault(f"{place}:{line}", check_option, code)
        for block in page.blocks:
            if block.language == "python":
                yield from _fault(block, compile, block.text, str(block), "exec")
            elif not block.language:
                for words in commands(block):
                    yield from _fault(block, check_command, words)
            elif block.language != "text":
                yield f"{block}: a block of {block.language!r}, expected commands (no language), python or text"
    for path in pages.keys() - reachable(pages):
        yield f"{path.relative_to(markdown.ROOT)}: no link leads there from the README"


def reachable(pages):
    """The paths to which links lead from the README, by way of pages."""
    found, new = set(), {markdown.ROOT / "README.md"}
    while new:
        found |= new
        links = {(path.parent / target.partition("#")[0]).resolve() for path in new for _, target in pages[path].links}
        new = (links & pages.keys()) - found
    return found


def _fault(place, check, *arguments):
    try:
        check(*arguments)
    except (ValueError, SyntaxError) as error:
        yield f"{place}: {error}"
