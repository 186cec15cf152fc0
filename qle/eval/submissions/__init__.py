"""Files of predictions, in the form of a QVHighlights submission: reading, measuring and writing them. No torch.

    predictions.jsonl --rows.py--> columns --answers.py--> answers --measure.py--> a report, by one of the protocols

rows.py              rows of predictions beside the rows of what is true, read and checked
odd_rows.py          what is odd though it can be measured
answers.py           a file of predictions as answers, measured like a head
measure.py           which protocol measures them
qvhighlights.py      the numbers of QVHighlights, as its program prints them
official_report.py   those numbers with floors, and without the faults of that program
charades.py          the numbers of Charades-STA
write.py             predictions of qle as such rows
"""
