"""The loop of a training: batches in, a trained model out; killed anywhere, it goes on to the same numbers.

    batches -> weighting.py: what each part of a step counts -> model.py: terms of the loss -> optimiser.py -> ema.py
        every so often: history.py, a validation, checkpoints.py

loop.py          the loop
model.py         head and text encoder as one module
weighting.py     the loss of a spread step equals the loss of one big batch
optimiser.py     AdamW, and the learning rate as a function of the step
ema.py           the running mean of the weights, which is what is saved
meter.py         numbers of the last steps, kept on the device
history.py       history.jsonl and TensorBoard
checkpoints.py   what a killed training goes on from
randomness.py    the state of every random generator
"""
