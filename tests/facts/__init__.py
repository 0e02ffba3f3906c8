"""Does the sandbox answer as a real Keycloak does? One list of facts, asserted of both.

May use: plain HTTP, the administrator's side of both servers. Must not use: the app, the site.
"""
