"""A real Keycloak, sipgate's kind of authorization server: downloaded once, started here, steered by tests."""
