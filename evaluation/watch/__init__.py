"""Watch policies play in a browser, and watch their weights change."""
