"""A local stand-in for sipgate: authorization server and REST API, with people for unusual cases. It is a process with
settings, database and cookies of its own. Neither the site nor the app imports it.
"""
