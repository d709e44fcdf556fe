"""What people read: published pages, the book, its PDF, slides and release."""
