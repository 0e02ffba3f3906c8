"""A local stand-in for sipgate: authorization server and REST API, with people for unusual cases.

It is a process with settings, a database and cookies of its own.
"""
