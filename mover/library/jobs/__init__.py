"""Jobs: what is done with an image's bytes while no request waits for it, in a state that outlives every process."""
