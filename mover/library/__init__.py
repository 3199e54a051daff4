"""The image library: a catalogue of images, its views (Glance's Images API v1 and v2), and the bytes behind it.

registry/ keeps what is known of each image; the views in v1/ and v2/ put it into each API's words; a Carrier
(seam.py) moves the bytes between a client and the stores.
"""
