"""`mover bench`, Mover beside others at the same tasks, and `make demo`.

Read rows.py, which has the rows, and contest.py, how one is held; each larger row has a module. demo.py is the demo.
"""
