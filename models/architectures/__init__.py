"""Small seeded networks that tests and benches build."""
