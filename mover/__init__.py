"""Mover: disk images between HTTP clients and NBD exports."""
