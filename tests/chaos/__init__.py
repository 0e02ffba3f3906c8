"""Two machines, one database, one rotator, and everything that goes wrong: what is lost, and
why."""
