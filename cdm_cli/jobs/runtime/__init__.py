"""Processes, devices, signals: what every job runs on, and what makes two runs one job."""
