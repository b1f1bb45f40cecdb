"""`cdm demo`: the whole cascade on images that it draws itself."""
