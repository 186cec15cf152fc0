"""Training batches of heads that score rows: windows of rows, each with what is asked of it.

    windows.py: which rows, in which batch
        --sources.py: their tokens--> collate.py <-- questions.py: queries and their answers
        --upload.py--> RowBatch on the device

config.py          the settings `data.*`
loader.py          the batches, one after the other
windows.py         which windows of rows an epoch reads
questions.py       what a window is asked, and the answers row by row
sources.py         the interface of sources of tokens, and the plainest: mapped files
packed.py          tokens in memory, or on the device
streamed.py        tokens read ahead by processes; stream_worker.py is such a process from inside
tokens.py          windows out of a space into buffers, checked
collate.py         windows, tokens and questions -> one batch
augment.py         mirrored maps and dropped tokens, where the config asks for them
upload.py          batches to the device, beside its work
"""
