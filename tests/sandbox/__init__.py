"""Does the local sipgate behave like sipgate, and does each fault do what it says?

May use: plain HTTP (``visitor``), the control API, the parsers of ``sipgate_provider.values``. Must
not use: the site.
"""
