"""Do allauth's own provider tests pass? They are run from its source distribution against this provider.

May use: allauth's test mixin, and PyPI, once, for the source distribution that has it.
"""
