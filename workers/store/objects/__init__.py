"""Stores of objects on servers: S3, Swift, WebHDFS (docs/object-stores.md).

Read store.py, what a store does, then objects.py, what it asks of a server, and kinds.py, which leads to s3.py,
swift.py and webhdfs.py. Images go out in pieces (writing.py) and are read by export.py, ahead of who goes on
(read_ahead.py). credentials.py says who asks, asking.py asks what OpenDAL has no call for.
"""
