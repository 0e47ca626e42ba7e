"""The images of jobs: what a definition asks for, brought to the daemon, or built and kept in the registry."""
