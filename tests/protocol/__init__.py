"""The protocol of a refresh as a model small enough to try everything: every order of steps, every
kill, every pause.

Read ``model.py`` to learn the protocol; ``explore.py`` is the search; ``test_protocol.py`` says
what holds, and what fails without each part. The model knows no Django and no HTTP: the real code
is driven through its named points in ``tests/concurrency``.
"""
