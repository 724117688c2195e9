"""What the course needs besides its chapters: a student's progress, and marks for a lecturer."""
