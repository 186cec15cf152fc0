"""Parts of the Moment-DETR family: a set of learned queries, each of which answers with a span.

    clips, words --inputs.py--> tokens with positions --encoder.py--> memory --decoder.py | reference_decoder.py--> states
        --outputs.py--> spans, classes, saliency --matcher.py--> pairs of query and moment
        --set_losses.py, saliency_losses.py--> losses

config.py              settings that all heads of the family have
inputs.py              where clips and words enter
clip_positions.py      where a clip, a word or a span stands, as numbers
text_to_video.py       clips listen to the words of the query (QD-DETR)
encoder.py             self-attention over clips and words; token_encoder.py adds a token that stands for the whole item
decoder.py             the plain decoder of Moment-DETR
reference_decoder.py   the decoder whose queries are spans that its layers move
token_detr.py          encoder with a token and decoder together, as QD-DETR and MESM have them
outputs.py             states to spans, classes and saliency
matcher.py             which query answers for which moment
set_losses.py          losses of matched and unmatched queries
saliency_losses.py     losses of the saliency of clips
moment_losses.py       the losses of both as pure functions of tensors
"""
