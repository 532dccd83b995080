"""Where workers are: on a virtual clock, in processes, in a recorded trace."""
