"""From a video file to frames in shared memory, in processes that may die."""
