"""The former name of ``errors.log_fields``, while ``tokens`` uses it."""

from sipgate_provider.errors import log_fields as fields

__all__ = ["fields"]
