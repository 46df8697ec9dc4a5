"""Settings: the YAML files that come with the project, and how such files are read."""
