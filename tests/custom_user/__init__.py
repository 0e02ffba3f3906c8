"""Does everything work with another user model? Its settings are its own, so it runs as a process of its own.

May use: the same as ``flows``.
"""
