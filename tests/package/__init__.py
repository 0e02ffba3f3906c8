"""Does the installed package work in sites of other people?

May use: the built wheel in an environment of its own (made from PyPI), other versions of Python and Django, HTTP, and
the sites of ``tests/foreign_site``.
Must not use: this checkout from within such a site.
"""
