"""The report page: one HTML file that needs nothing from outside.

    explained predictions -> report.py (values) -> document.py + template/ -> one HTML file

report.py         what the page shows of each video and query
timeline.py       scores and moments drawn over time
lanes.py          moments that overlap, one below the other
clock.py          times as people read them
document.py       the template filled in; everything that a stranger wrote is escaped
"""
