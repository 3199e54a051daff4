"""A front end: one Sanic process that parses HTTP and owns the bytes on the wire.

Read app.py, the routes, then images.py and visit.py, one request and its use of an image; download.py and outlet.py are
the way out, upload.py and intake.py the way in. link.py reaches the supervisor and holds the lanes, tickets.py who may
what, admission.py and meter.py how much at once. What touches Sanic's private parts is in sanic_*.py alone.
"""
