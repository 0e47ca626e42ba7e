"""The command line: one command per file; it parses, calls and prints."""
