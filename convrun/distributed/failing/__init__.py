"""How the processes of a run tell each other that one has failed."""
