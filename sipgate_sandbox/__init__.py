"""A local stand-in for sipgate: authorization server and REST API, with people who exercise the odd cases.

A process of its own, with settings, database and cookies of its own. Neither the site nor the app imports it.
"""
