"""Image encoders: frames in, features for the core out. A new one is a file here and a line in the registry."""
