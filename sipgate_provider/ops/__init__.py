"""Holds what operators do and see: keepalive, key change, doctor, statistics, notices, import.

Commands, the admin and checks use it. It must not know terminals or pages.
"""
