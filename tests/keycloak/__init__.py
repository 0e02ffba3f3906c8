"""Does the journey work against a real Keycloak, which is sipgate's kind of authorization server?

It is downloaded once, started on this machine, and steered by tests. May use: the site's pages, the app's public API,
the administrator's side of Keycloak. The modules beside the tests are used by ``tests.facts`` and ``make run-keycloak``.
"""
