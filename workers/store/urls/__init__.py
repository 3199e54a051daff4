"""Sources at URLs, which are read and never written (docs/url-sources.md).

Read answers.py, what a server's answer means, then connection.py, one connection to a judged address, and source.py,
ranges over several of them. export.py is a source as a worker's connection, store.py one as an image of the library.
"""
