"""Measures what this project promises about speed: ``python -m bench`` (see ``__main__``).

Everything runs on this machine, against the local sandbox. Each case measures a *bare baseline* in the same rounds: the
least that has to happen anyway (one query, one request). What the project adds is the difference.
"""
