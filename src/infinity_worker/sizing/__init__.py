"""How many workers, of which kind, with which settings: on paper and in a simulation.

Nothing else imports this but the command line. docs/scaling.md derives what is computed here.
"""
