"""What an authorization server of sipgate's kind answers: facts that are asserted of the sandbox and of Keycloak."""
