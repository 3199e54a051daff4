"""VISOR's API: metadata in headers named as they are, JSON or XML, requests signed by their users."""
