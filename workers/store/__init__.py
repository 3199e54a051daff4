"""A worker's way to the images of the library: one store behind a lane.

A byte comes in by export.py (questions, and the steps of an upload), goes through a session (session.py: progress.py
says what has come, digests.py hashes beside the writing) into what backing.py, the seam, asks of every store, and is
seen by publishing.py, or by finishing.py if it was written at random. inspection/ looks at it before that. Behind the
seam: files/, objects/ and urls/; views/ shows the disk in an image.
"""
