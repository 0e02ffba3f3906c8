"""What a server like sipgate's answers. Each fact is asserted of the sandbox and of Keycloak."""
