"""All of the check: `make docs-check`."""

import sys

from tests.docs_check.faults import faults
from tests.docs_check.markdown import read_pages
from tests.docs_check.runs import run_all


def main():
    """Returns the exit status: 0 if all is well."""
    pages = read_pages()
    found = list(faults(pages))
    print(*found, f"{len(pages)} pages read, {len(found)} faults", sep="\n", flush=True)
    return 1 if run_all(pages) or found else 0


if __name__ == "__main__":
    sys.exit(main())
