"""What a run is: typed configuration, the named pipelines, the command line. Imports nothing heavy."""
