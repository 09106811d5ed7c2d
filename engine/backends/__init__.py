"""What can execute a part of a plan."""
