"""What a person asks of a command: one frozen dataclass per job, whose fields carry their flags."""
