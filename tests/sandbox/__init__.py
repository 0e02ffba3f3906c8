"""Does the local sipgate behave like sipgate, and does each fault do what it says?

The tests may use plain HTTP (``visitor``), the control API and ``sipgate_provider.values``, but not
the site.
"""
