"""What has a front end: the live view of a run, the panel, the board, the vote.

All of it is a view over the same session, store and frame: what a widget does can be done by magic and by
function, too, and is kept as runs. Each module is imported when its widget is first wanted.
"""
