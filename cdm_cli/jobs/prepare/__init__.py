"""`cdm prepare`: from files of images to a prepared store."""
