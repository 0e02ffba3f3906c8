"""What if the database goes away between sipgate's answer and the commit?

May use: a PostgreSQL server of its own that it stops and starts, processes.
Must not use: the other tests' database.
"""
