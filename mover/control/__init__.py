"""Where tickets come from, in the supervisor.

Read registry.py, which has them all, with store.py, where they are on disk, and gate.py, what they may name; then who
installs them: imageio.py with ticket_service.py, cloudstack.py, transfer_dir.py, and grants.py for the library's own.
"""
