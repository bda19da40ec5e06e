"""Which explanation is right: the study, the search before it, and the page that says so."""
