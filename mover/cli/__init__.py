"""The command line: main.py has the commands, a module each (`*_command.py`); status.py says how each of them ends."""
