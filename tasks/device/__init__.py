"""Find the hardware, lock it, and see that it is idle."""
