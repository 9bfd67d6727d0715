"""`infinity-worker serve`: the engine, workers and the local edge, together on this machine."""
