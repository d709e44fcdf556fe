"""What follows from the records of trainings."""
