"""What an image is, before anybody sees it or another program reads it.

Read claims.py, whether it is what it was said to be, then headers.py, what its own bytes say, and qemu_img.py, which
asks qemu-img in a process without means (confine.py). sizes.py is for images that are no files.
"""
