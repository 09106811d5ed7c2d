"""Running plans on many studies."""
