"""A local stand-in for sipgate's authorization server and REST API, with people for odd cases.

It is a Django project of its own, with its own process, settings, database and cookies.
"""
