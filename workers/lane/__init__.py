"""What a front end and a worker share: memory, and the jobs that say what is done with it.

Read protocol.py, what travels, then ring.py and slots.py, the rules of the memory, and the two ends, front_lane.py and
worker_lane.py. channel.py carries what is said beside it. *_format.py are for slots that hold no bytes of an image.
"""
