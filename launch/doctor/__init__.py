"""What stands between a run and its hosts, found before the run: software, resources, network."""
