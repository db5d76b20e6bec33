"""Markdown pages, cut into prose and blocks: their links, headings and commands."""

import dataclasses
import itertools
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "*.md", "docs/*.md", "benchmarks/*.md", "tests/golden/*.md")


@dataclasses.dataclass(frozen=True)
class Block:
    """Fenced lines of a page."""

    page: pathlib.Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Page:
    """A Markdown file, cut into blocks and what lies between them.

    Attributes:
      prose: of as many lines as the file, blocks left empty.
    """

    path: pathlib.Path
    prose: str
    blocks: list

    @classmethod
    def read(cls, path):
        prose, blocks, fenced = [], [], None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            prose.append("" if fenced or line.startswith("```") else line)
            if line.startswith("```"):
                if fenced:
                    blocks.append(Block(path, *fenced[:2], "\n".join(fenced[2:])))
                fenced = None if fenced else [number + 1, line[3:].strip()]
            elif fenced:
                fenced.append(line)
        return cls(path, "\n".join(prose), blocks)

    @property
    def anchors(self):
        """As GitHub makes them of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

    @property
    def links(self):
        """[(line, target)], other sites left out."""
        found = re.finditer(r"\]\(([^)\s]+)\)", self.prose)
        links = [(1 + self.prose.count("\n", 0, match.start()), match[1]) for match in found]
        return [(line, target) for line, target in links if "://" not in target]

    @property
    def quoted(self):
        """[(line, code within a sentence)]."""
        found = re.finditer(r"`([^`]+)`", self.prose)
        return [(1 + self.prose.count("\n", 0, match.start()), " ".join(match[1].split())) for match in found]


def read_pages():
    """{path: Page} of all of them, the README first."""
    paths = itertools.chain.from_iterable(sorted(ROOT.glob(pattern)) for pattern in PAGES)
    return {path: Page.read(path) for path in paths}


def commands(block):
    """The commands of a block, continued lines joined and comments cut off: lists of words."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
