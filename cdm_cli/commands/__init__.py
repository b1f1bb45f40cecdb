"""One file per command: flags in, one job, its result out. Nothing heavy is imported here."""
