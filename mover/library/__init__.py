"""The image library: a catalogue, its views (Glance's Images API v1 and v2, and VISOR's), and the bytes behind it.

Read seam.py, what a view asks of a Carrier, then library.py, what a front end holds, and uploads.py, an image from
claim to end. registry/ keeps what is known of each image, v1/, v2/ and visor/ put it into each API's words, bytes/
moves the bytes, jobs/ does what no request waits for, and bridge.py makes tickets of images.
"""
