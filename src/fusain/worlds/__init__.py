"""Worlds made by the program itself: images whose truth is known,
so that a training run can be judged without any file from elsewhere."""
