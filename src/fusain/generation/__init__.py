"""From weights and a condition to images with their facts."""
