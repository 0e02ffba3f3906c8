"""A real Keycloak, sipgate's kind of authorization server: downloaded once, started on this machine, steered by tests."""
