"""Rules: equations that hand the relevance of a layer's output to its inputs."""
