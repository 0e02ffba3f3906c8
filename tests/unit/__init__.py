"""Does this module keep its promise? One module at a time.

May use: bytes of ``tests.raw_server``, plain values.
Must not use: Django's client, the sandbox.
"""
