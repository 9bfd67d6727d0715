"""A RunPod platform in memory, on one machine.

The real RunPod SDK works behind it and unmodified clients talk to it: `server.EdgeServer` runs it.
"""
