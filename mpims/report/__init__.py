"""What people are told of a run, while it goes on and afterwards."""
