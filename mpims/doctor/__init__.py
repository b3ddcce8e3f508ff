"""What `mpims doctor` looks at, a file for each theme; each gives findings."""
