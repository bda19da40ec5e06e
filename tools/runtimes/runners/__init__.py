"""What each runtime is given to run a file: scripts for that runtime's own interpreter."""
