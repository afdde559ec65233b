"""Models and corpora become verified local files; no other chapter touches a network."""
