"""A classifier on a whole data set: accuracy, F1, confusions, and how long it takes."""
