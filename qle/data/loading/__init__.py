"""What the batches of every task share: where the tokens lie, which buffers they go through, where an epoch goes on. No torch.

    size of the tokens + free memory --plan.py--> device, ram, mapped or streamed --> a loader of qle/tasks
        --buffers.py--> batches

plan.py      the fastest place that holds the tokens, with the reason in words
buffers.py   arrays that are used again, and a thread that makes batches ahead of their consumer
share.py     what every loader is told alike: for which process, where, drawn from which seed, and from which batch on
"""
