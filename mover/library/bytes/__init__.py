"""What is behind the library's seam (mover/library/seam.py): bytes between clients, stores and disks.

Read carrier.py, which has all that a view asks for; then lanes.py and asking.py, how a store is reached, and
receiving.py, a body into a store. hauling.py moves images to and from disks, haul.py is the moving itself, from lane to
lane. exports.py, disks.py, urls.py and volumes.py say which export, which disk, which source, which directory is meant.
"""
