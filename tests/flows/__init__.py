"""Does the whole journey work? Sign-in, pages, tokens, commands and the admin, over HTTP.

May use: Django's test client, the sandbox, the rotator, the database. Must not use: replacements of the app's own
code, except to watch it or to let one step fail.
"""
