"""Where the working set of a training lies: on the device, in memory, in mapped files, streamed."""
