"""What an authorization server of sipgate's kind answers: one list of facts, asserted of the sandbox and of Keycloak."""
