"""What if it happens at once? Real processes, real databases, a strict server; no mocks, nothing slept and hoped for."""
