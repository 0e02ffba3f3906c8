"""The site around ``sipgate_provider``: accounts, pages, settings."""
