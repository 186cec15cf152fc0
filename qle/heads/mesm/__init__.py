"""The MESM head: QD-DETR that also learns to rebuild hidden words and the sentence from the video.

    clips, words --words.py: some are hidden, and told from the video--> clips that listened
        --sentences.py--> decoder -> spans, saliency

head.py        the head
words.py       words that are hidden and told from the video: what is hidden, what is asked, what it costs
sentences.py   the sentence that a video would have, made by looking at its clips
"""
