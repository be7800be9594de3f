"""How the processes of a run are started, meet and part."""
