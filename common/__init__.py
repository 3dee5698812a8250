"""What every package may import: errors that a user can cause."""
