"""The disk in an image of another format than raw (docs/bridge.md).

server.py starts a qemu-nbd, confined, that shows it; export.py is the worker's connection to that.
"""
