"""What the views show, as Qt models over plain data, and the filter language."""
