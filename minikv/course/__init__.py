"""What the course needs besides its chapters: a student's progress, and marks for a lecturer."""

SECONDS = 20
"""Of processor time, for each check of a notebook that was handed in; thrice that on the clock."""
