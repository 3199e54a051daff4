"""A worker: the process that has the connections to one image's server, or its files.

Read worker.py, the loop, then lanes.py, where jobs come from, schedule.py and plan.py, what becomes of them, and
connections.py with connection.py, the seam behind which nbd_export.py, file_export.py and whole_file.py stand.
ledger.py keeps what may be lost where no death reaches it.
"""
