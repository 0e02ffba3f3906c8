"""Two machines, one database, one strict server, and everything that goes wrong: what is lost, and
why."""
