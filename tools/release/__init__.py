"""What a release consists of: archives that anyone builds again byte by byte, a list of what goes
with them, and the versions of the dependencies that they were tried with.
"""
