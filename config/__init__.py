"""Settings and exports: what is configured, and how it is read. Imports nothing of `workers` or `mover`."""
