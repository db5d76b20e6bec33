"""The pages for people: their links and their commands. `make docs-check` also runs the commands."""

import pytest

from tests import docs_check

# By ml_collections, which reads the configuration files.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def test_links_lead_somewhere_and_commands_are_ones_that_programs_take():
    assert "\n".join(docs_check.faults(docs_check.read_pages())) == ""
