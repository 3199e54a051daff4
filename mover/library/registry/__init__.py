"""The registry: what is known of every library image, in SQLite or PostgreSQL. Synchronous; call it in a thread."""
