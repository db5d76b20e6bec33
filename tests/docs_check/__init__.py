"""Tries what the pages for people say: `make docs-check`.

1. Links, pictures and anchors lead somewhere, and every page can be reached from the README.
2. Every command, in a block or within a sentence, is one that the program it starts takes: parsed by that program's own
   parser. Every Python block compiles.
3. What needs no foreign data, cluster or GPU is run, in a copy of the project beside small stand-ins for the files that
   the pages name; one folder for all pages, as for a reader who tries everything.

It stands among the tests because the first two are one, `tests/test_docs.py`. Blocks without a language are commands;
what a program prints goes into blocks of `text`.
"""
