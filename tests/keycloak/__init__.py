"""A real Keycloak, the authorization server that sipgate uses. Tests download, start and steer it."""
