"""The workspace as a whole: what is in it, what of it can be made again, what it runs on."""
