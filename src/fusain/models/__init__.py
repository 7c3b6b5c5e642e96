"""What can be learnt: the contract of a family, the maths of noise, safe weights."""
