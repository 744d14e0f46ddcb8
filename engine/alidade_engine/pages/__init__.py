"""Pages for people: one HTML file each, that needs no script and no network."""
