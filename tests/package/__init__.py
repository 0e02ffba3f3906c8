"""Does the installed package work in sites of other people?

May use: the built wheel in an environment of its own, HTTP, and the sites of ``tests/foreign_site``;
in long tests the package index, and other versions of Python and Django.
Must not use: this checkout from within such a site.
"""
