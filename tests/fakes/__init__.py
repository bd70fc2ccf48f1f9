"""Stand-ins for services that tests need and that must fail on demand."""
