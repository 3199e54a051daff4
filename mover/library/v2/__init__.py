"""The Images API v2: the registry in JSON."""
