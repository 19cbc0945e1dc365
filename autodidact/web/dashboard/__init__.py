"""What it learned, as pages and as JSON."""
