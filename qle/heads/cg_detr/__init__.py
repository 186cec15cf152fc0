"""The CG-DETR head: spans from attention in which dummy tokens take what the query does not explain.

    clips, words --dummy_attention.py--> clips that listened to the words
        --saliency_token.py, encoder, decoder--> spans, saliency

head.py               the head
dummy_attention.py    attention of clips to words, and to learned dummies
saliency_token.py     the token whose product with a clip is the saliency of the clip
losses.py             what the head is taught beside its spans; alignment_losses.py has the losses that tie frames to words
"""
