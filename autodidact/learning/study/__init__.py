"""The study process of one cycle: `python -m autodidact.learning.study [--give-way HOME] JOB.json`

    __main__      the process: hears `stop`, says events
    course        the main path: prepare, measure, train, measure, look nearer
    session       the job, its folder, its time, whom to tell
    preparation   anchors, the trainer, what it trains on, the plan
    planning      what fits into the time: pure
    measuring     which questions are asked, and the answers of each version
    priority      everything else on the machine goes first
    waiting       it waits while a reply is being made
    search        what was trained, and shorter steps towards it

A fresh process for every cycle (memory of long training loops grows), started and heard by
`learning.process`. It writes only into the job's own folder under `.staging`; it never publishes
and never opens a database. All that it found out lies there as files, so that the same job,
started again, goes on where it was.

May import: what learning may; torch only where it is needed, so that `stop` is heard early.
"""
