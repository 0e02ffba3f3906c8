"""Measures what the documents promise about speed: ``python -m bench``."""
