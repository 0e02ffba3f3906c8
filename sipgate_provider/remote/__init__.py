"""Talks to sipgate's endpoints over HTTP.

Everything in the app may use it. It must not know Django, allauth, or where a token comes from.
"""
