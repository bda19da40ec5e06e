"""What is left after every fault, and whether the same command goes on."""
