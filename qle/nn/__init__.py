"""What heads share, once: layers, positions, losses. Nothing here knows a head, a batch or a file.

    tokens --projection.py--> the width of a head --attention.py, positions.py, residual.py, mlp.py--> logits, spans
        --losses.py--> a loss

attention.py    multi-head attention, laid out like torch's so that its weights fit
dropout.py      dropout that costs little on a CPU
residual.py     x + branch(x) with its norm
mlp.py          linear layers with a ReLU between them
projection.py   features as they come -> the width of a head
positions.py    encodings of grid cells and of real time
spans.py        arithmetic of spans with gradients
losses.py       losses of scores of rows
xavier.py       the first weights of the Moment-DETR family
temporal/       mixers over time
detr/           parts of the Moment-DETR family
"""
