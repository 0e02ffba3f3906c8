"""allauth's own provider tests, run from its source distribution against this provider."""
