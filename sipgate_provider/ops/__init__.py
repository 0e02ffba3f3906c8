"""Holds what operators do and see: keepalive, key change, doctor, notices.

Commands, the admin and checks use it. It must not know terminals or pages.
"""
