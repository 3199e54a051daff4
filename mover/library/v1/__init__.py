"""The Images API v1: metadata in headers, data in bodies."""
