"""Does this module keep its promise? One module at a time.

May use: bytes of ``tests.wire`` and ``tests.scripted``, plain values. Must not use: Django's client, the sandbox.
"""
