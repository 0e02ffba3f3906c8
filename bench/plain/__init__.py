"""A minimal allauth provider, as a tutorial would write it: what a sign-in costs without ours."""
