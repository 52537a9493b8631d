"""What every room needs and nothing of which knows a CT: errors, labels, small files, locks, processes."""
