"""The files of models: their headers, the folders they lie in, their names."""
