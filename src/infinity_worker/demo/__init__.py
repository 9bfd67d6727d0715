"""The demo models: toys that know coloured shapes only, and the pictures and texts about those."""
