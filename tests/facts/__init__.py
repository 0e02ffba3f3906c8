"""What a server of sipgate's kind answers: facts asserted of the sandbox and of Keycloak."""
