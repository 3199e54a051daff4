"""The processes that hold images: image/ is one, lane/ leads to front ends, store/ to the images of the library."""
