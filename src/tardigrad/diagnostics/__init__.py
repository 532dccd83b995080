"""What a run or a problem is like, seen through its theory."""
