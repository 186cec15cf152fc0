"""The T-MASS head: ranks videos for a text, which is a cloud of points rather than one point.

    frames, text --text_pooling.py: frames weighed by the text--> the video as this text sees it
        --sampled_text.py--> similarity

head.py           the head
text_pooling.py   the frames of a video, pooled by how well each fits the text
sampled_text.py   how wide the cloud of a text is, points of it, and how near they come to a video
"""
