"""Work for operators: keepalive, doctor, notices, personal data.

Commands and the admin use it. It must not know terminals or pages.
"""
