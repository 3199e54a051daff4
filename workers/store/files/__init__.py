"""The store of files in directories (docs/file-store.md).

Read store.py, what a store does, then part.py, the file of an image on its way in, and records.py, what stands beside
it. cloning.py, thin.py and links.py are how a part is filled and gets its name; preparing.py comes before the first
image, and mountpoints.py says where clients have the same files.
"""
