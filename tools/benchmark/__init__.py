"""What an explanation costs in time and memory, and the page that says so."""
