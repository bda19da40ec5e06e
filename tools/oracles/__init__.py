"""Values of other people's code on small networks, for the tests to compare with."""
