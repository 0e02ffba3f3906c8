"""Do allauth's own provider tests pass? They are in its source distribution.

May use: allauth's test mixin, and PyPI, once, for the source distribution that has it.
"""
