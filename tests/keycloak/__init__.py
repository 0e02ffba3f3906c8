"""A real Keycloak, the kind of server that sipgate uses. Tests download, start and steer it."""
